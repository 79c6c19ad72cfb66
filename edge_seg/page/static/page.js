import { Chart } from "./charts.js";

const EVERY_MS = 1000;
const RETRY_MS = 2000;
const VIEW_NAMES = { output: "Output", mask: "Mask", camera: "Compare" };
const VIEW_NOTES = {
  output: "What viewers see.",
  mask: "Blue: what the mask takes for the person. The line is where it is undecided.",
  camera: "Left: the real room. Nobody but this page sees it.",
};
const QUALITY_NAMES = { fast: "Fast", balanced: "Balanced", best: "Best" };
const STAGES = ["pyramid", "flow", "wait", "fusion", "background", "matte", "composite", "push"];
const STAGE_NAMES = { wait: "wait for the mask", push: "hand-over", model: "model" };

const get = (id) => document.getElementById(id);
const say = (id, text) => { if (get(id).textContent !== text) get(id).textContent = text; };

/** Makes an element with text and children. */
function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function ask(path, body) {
  const answer = await fetch(path, body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.status === 401) location.replace("login");
  return answer;
}

// ---- the preview: a stream only while somebody looks ----

const picture = get("picture");
let view = "output";
let isPaused = false;
let retry = 0;

function look() {
  clearTimeout(retry);
  picture.removeAttribute("src");
  if (isPaused || document.hidden) return;
  picture.src = `preview.mjpeg?view=${view}&at=${Date.now()}`;
}

picture.addEventListener("load", () => {
  get("stage-note").hidden = true;
  get("stage").style.aspectRatio = `${picture.naturalWidth} / ${picture.naturalHeight}`;
});
picture.addEventListener("error", () => {
  if (!picture.hasAttribute("src")) return;
  get("stage-note").hidden = false;
  say("stage-note", "No picture: the daemon does not answer, or too many watch already");
  retry = setTimeout(look, RETRY_MS);
});
document.addEventListener("visibilitychange", look);
get("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  get("pause").setAttribute("aria-pressed", String(isPaused));
  say("pause", isPaused ? "Resume" : "Pause");
  get("stage-note").hidden = !isPaused;
  say("stage-note", "Paused");
  look();
});

/** Radio buttons that look like one bar; made anew only when the choices are others. */
function radios(host, name, choices, chosen, onChoose) {
  const key = JSON.stringify(choices);
  if (host.dataset.key !== key) {
    host.dataset.key = key;
    host.replaceChildren(...choices.map(({ id, label }) => {
      const input = make("input", { type: "radio", name, value: id });
      input.addEventListener("change", () => onChoose(id));
      return make("label", {}, input, make("span", { textContent: label, title: label }));
    }));
  }
  for (const input of host.querySelectorAll("input")) input.checked = input.value === chosen;
}

function showViews(views) {
  radios(get("views"), "view", views.map((id) => ({ id, label: VIEW_NAMES[id] })), view, (id) => {
    view = id;
    say("view-note", VIEW_NOTES[id]);
    look();
  });
  say("view-note", VIEW_NOTES[view]);
}

// ---- the controls ----

let isChanging = 0;

async function change(wish) {
  isChanging += 1;
  get("controls-error").hidden = true;
  try {
    const answer = await ask("api/controls", wish);
    const found = await answer.json();
    if (answer.ok) {
      if (isChanging === 1) showControls(found);
    } else {
      throw new Error(found.error ?? `the daemon answered ${answer.status}`);
    }
  } catch (error) {
    say("controls-error", `Not changed: ${error.message}`);
    get("controls-error").hidden = false;
  } finally {
    isChanging -= 1;
  }
}

function showControls(controls) {
  get("controls").classList.toggle("off", !controls);
  for (const input of get("controls-form").elements) input.disabled = !controls;
  if (!controls) {
    say("controls-note", "Changes from this page are switched off (web.controls).");
    return;
  }
  radios(get("backgrounds"), "background",
    controls.backgrounds.map(({ id, name }) => ({ id, label: name })), controls.background,
    (id) => change({ background: id }));
  radios(get("qualities"), "quality",
    controls.qualities.map((id) => ({ id, label: QUALITY_NAMES[id] ?? id })), controls.quality,
    (id) => change({ quality: id }));
  get("colour-row").hidden = controls.background !== "colour";
  get("strength-row").hidden = controls.background !== "blur";
  if (document.activeElement !== get("colour")) get("colour").value = controls.colour;
  if (document.activeElement !== get("strength")) {
    get("strength").value = Math.round(controls.strength * 100);
    say("strength-text", `${get("strength").value} %`);
  }
  get("mirror").checked = controls.mirror;
}

get("colour").addEventListener("change", (event) => change({ colour: event.target.value }));
get("strength").addEventListener("input", (event) => say("strength-text", `${event.target.value} %`));
get("strength").addEventListener("change", (event) => change({ strength: event.target.value / 100 }));
get("mirror").addEventListener("change", (event) => change({ mirror: event.target.checked }));
get("controls-form").addEventListener("submit", (event) => event.preventDefault());
get("logout").addEventListener("click", async () => {
  await ask("logout", {});
  location.replace("login");
});

// ---- how it goes ----

const latencyChart = new Chart(get("latency-chart"), {
  series: [{ name: "p99", className: "p99" }, { name: "p50", className: "p50" }],
});
const rateChart = new Chart(get("rate-chart"), { series: [{ name: "", className: "p50" }], unit: "fps" });
const stagesChart = new Chart(get("stages-chart"), {
  series: STAGES.map((name, index) => ({ name: STAGE_NAMES[name] ?? name, className: `c${index + 1}` })),
  stacked: true,
});
get("latency-legend").append(
  ...[["p99", "p99"], ["p50", "p50"], ["limit", "budget"]].map(([className, text]) =>
    make("span", {}, make("i", { className }), text)),
);

const number = (value, digits = 0) => (value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits }));
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

function showTiles(state) {
  say("fps", number(state.frame_rate, 1));
  say("fps-note", `${plural(state.frames, "frame")} so far`);
  say("latency", number(state.latency_ms?.[1], 1));
  say("latency-note", `p50 ${number(state.latency_ms?.[0], 1)}, budget ${number(state.budget_ms)} ms`);
  say("mask-age", state.mask_age_ms == null ? "none" : number(state.mask_age_ms, 0));
  get("mask-unit").hidden = state.mask_age_ms == null;
  say("mask-note", state.model.failing ? "the model fails" : state.mask_age_ms == null ? "no mask is shown" : "");
  say("misses", number(state.misses));
  say("misses-note", state.frames ? `${number((100 * state.misses) / state.frames, 2)} % of all` : "");
  const known = state.outputs.filter((output) => output.viewers != null);
  say("viewers", known.length ? number(known.reduce((sum, output) => sum + output.viewers, 0)) : "–");
  say("viewers-note", `and ${plural(state.watchers, "preview")}`);
  const sensors = Object.entries(state.board.temperatures_c).sort((a, b) => b[1] - a[1]);
  say("heat", sensors.length ? number(sensors[0][1], 1) : "–");
  get("heat-unit").hidden = !sensors.length;
  say("heat-note", sensors.length ? sensors[0][0] : "none found");
}

function showStages(stages) {
  const byName = Object.fromEntries(stages.map((stage) => [stage.name, stage.ms]));
  stagesChart.add(performance.now() / 1000, STAGES.map((name) => byName[name]?.[0] ?? null));
  get("stages").replaceChildren(...[...STAGES, "model"].filter((name) => byName[name]).map((name) => {
    const key = make("i", { className: name === "model" ? "none" : `c${STAGES.indexOf(name) + 1}` });
    const label = make("th", { scope: "row" }, key, STAGE_NAMES[name] ?? name);
    if (name === "model") label.append(make("span", { className: "muted", textContent: " (beside the frame)" }));
    return make("tr", {}, label, ...byName[name].map((ms) => make("td", { textContent: number(ms, 2) })));
  }));
}

function facts(id, pairs) {
  get(id).replaceChildren(...pairs.filter(([, text]) => text != null && text !== "").flatMap(([name, text, className]) =>
    [make("dt", { textContent: name }), make("dd", { textContent: text, className: className ?? "" })]));
}

function showParts(state) {
  const { source, model, board } = state;
  facts("source", [
    ["Source", source.name ?? `none (${source.type})`, source.name ? "good" : "bad"],
    ["Why", source.cause],
    ["Outages", number(source.outages)],
    ["Frames not used", number(state.dropped)],
    ["Model", model.name ?? "not loaded yet", model.failing ? "bad" : ""],
    ["Inferences", number(model.runs)],
    ["A frame gets", `${state.plan.matte_quality} matte, flow every ${state.plan.block_px} px, model every ${state.plan.model_every === 1 ? "frame" : `${state.plan.model_every} frames`}`],
  ]);
  get("outputs").replaceChildren(...state.outputs.map((output) => {
    const isGood = output.state === "running";
    const detail = [
      output.encoder, output.viewers == null ? null : plural(output.viewers, "viewer"),
      `${plural(output.frames, "frame")}`, output.dropped ? `${number(output.dropped)} dropped` : null,
      output.restarts ? plural(output.restarts, "restart") : null,
    ].filter(Boolean).join(" · ");
    return make("li", {},
      make("span", { className: `state ${isGood ? "good" : "bad"}`, textContent: output.state }),
      make("b", { textContent: output.name }),
      make("span", { className: "muted small", textContent: detail }),
      ...(output.cause && !isGood ? [make("span", { className: "error small", textContent: output.cause })] : []));
  }));
  const reasons = (found) => Object.entries(found).filter(([, is]) => is).map(([name]) => name.replaceAll("_", " "));
  const [now, before] = [reasons(board.throttled), reasons(board.throttled_since_boot)];
  const events = Object.entries(board.throttle_events).filter(([, count]) => count);
  facts("board", [
    ["Model", board.model || "unknown"],
    ...Object.entries(board.temperatures_c).slice(0, 6).map(([name, celsius]) => [name, `${number(celsius, 1)} °C`]),
    ["Throttled", Object.keys(board.throttled).length ? now.join(", ") || "no" : null, now.length ? "bad" : "good"],
    ["Since boot", before.join(", ")],
    ["Clock cuts", events.map(([name, count]) => `${name.replaceAll("_", " ")} ${count}`).join(", ")],
  ]);
}

function show(state) {
  say("host", state.host);
  document.title = `edge-seg · ${state.host}`;
  say("version", `edge-seg ${state.version}`);
  get("health").className = `pill ${state.reason ? (state.healthy ? "warn" : "bad") : "good"}`;
  say("health-text", state.reason ?? "live");
  get("logout").hidden = !state.login;
  showViews(state.views);
  if (!isChanging) showControls(state.controls);
  const now = state.plan.matte_quality;
  get("quality-note").hidden = !state.controls || state.controls.quality === now;
  say("quality-note", `For now ${now}: the budget of ${number(state.budget_ms)} ms leaves no time for more.`);
  showTiles(state);
  latencyChart.limit = state.budget_ms;
  latencyChart.add(performance.now() / 1000, [state.latency_ms?.[1] ?? null, state.latency_ms?.[0] ?? null]);
  rateChart.add(performance.now() / 1000, [state.frame_rate]);
  showStages(state.stages);
  showParts(state);
}

async function poll() {
  if (!document.hidden) {
    try {
      const answer = await ask("api/state");
      if (answer.ok) show(await answer.json());
    } catch {
      get("health").className = "pill bad";
      say("health-text", "the daemon does not answer");
    }
  }
  setTimeout(poll, EVERY_MS);
}

look();
poll();
