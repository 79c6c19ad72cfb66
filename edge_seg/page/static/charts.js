// Line and area charts over the last two minutes, as inline SVG.

const SVG = "http://www.w3.org/2000/svg";
const WINDOW_S = 120;
const MOST_LIMITS = 2.5; // a single stall must not flatten all that is usual: what is higher leaves the plot
const MARGIN = { top: 8, right: 8, bottom: 20, left: 36 };

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

/** The next round number at or above `value`: 1, 2, 5 times a power of ten, in halves where that fits better. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-6)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

export class Chart {
  /**
   * `series`: [{ name, className }], drawn in this order. `stacked`: as areas, one on top of the other.
   * Without series they come with the first samples, in the order of their names.
   */
  constructor(host, { series = [], stacked = false, limit = null, unit = "ms" }) {
    this.host = host;
    this.series = series;
    this.stacked = stacked;
    this.limit = limit;
    this.unit = unit;
    this.samples = [];
    this.svg = element("svg", {}, null);
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    host.append(this.svg, this.tip);
    new ResizeObserver(() => this.draw()).observe(host);
    host.addEventListener("pointermove", (event) => this.point(event));
    host.addEventListener("pointerleave", () => this.point(null));
  }

  /** `values`: one number, or null, for each series. */
  add(atS, values) {
    this.samples.push({ atS, values });
    while (this.samples.length && this.samples[0].atS < atS - WINDOW_S - 2) this.samples.shift();
    this.draw();
  }

  draw() {
    const { width, height } = this.host.getBoundingClientRect();
    if (width < 80) return;
    const plot = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    const now = this.samples.at(-1)?.atS ?? 0;
    const tops = this.samples.map((sample) => this.top(sample.values));
    const reach = Math.max(this.limit ? this.limit * 1.15 : 0, ...tops, 1) * 1.02;
    const highest = roundUp(this.limit ? Math.min(reach, this.limit * MOST_LIMITS) : reach);
    this.x = (atS) => MARGIN.left + plot.width * (1 - (now - atS) / WINDOW_S);
    this.y = (value) => MARGIN.top + plot.height * (1 - Math.min(value / highest, 1));

    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (let step = 0; step <= 4; step++) {
      const value = (highest * step) / 4;
      const y = this.y(value);
      element("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }, this.svg);
      const label = element("text", { class: "tick", x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, this.svg);
      label.textContent = Number(value.toPrecision(3));
    }
    for (const [backS, anchor] of [[120, "start"], [60, "middle"], [0, "end"]]) {
      const label = element("text", { class: "tick", x: this.x(now - backS), y: height - 5, "text-anchor": anchor }, this.svg);
      label.textContent = backS ? `${backS / 60} min ago` : "now";
    }
    const inside = this.samples.filter((sample) => sample.atS >= now - WINDOW_S);
    if (this.stacked) this.drawAreas(inside);
    else this.drawLines(inside);
    if (this.limit) {
      const y = this.y(this.limit);
      element("line", { class: "limit", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }, this.svg);
    }
    this.cursor = element("line", { class: "cursor", y1: MARGIN.top, y2: height - MARGIN.bottom, visibility: "hidden" }, this.svg);
  }

  drawLines(samples) {
    this.series.forEach((one, index) => {
      let path = "";
      for (const { atS, values } of samples) {
        if (values[index] == null) continue;
        path += `${path ? "L" : "M"}${this.x(atS).toFixed(1)} ${this.y(values[index]).toFixed(1)}`;
      }
      if (path) element("path", { class: `line ${one.className}`, d: path }, this.svg);
    });
  }

  drawAreas(samples) {
    if (samples.length < 2) return;
    let floor = samples.map(() => 0);
    this.series.forEach((one, index) => {
      const top = samples.map(({ values }, at) => floor[at] + (values[index] ?? 0));
      const up = samples.map(({ atS }, at) => `${this.x(atS).toFixed(1)} ${this.y(top[at]).toFixed(1)}`);
      const back = samples.map(({ atS }, at) => `${this.x(atS).toFixed(1)} ${this.y(floor[at]).toFixed(1)}`);
      element("path", { class: `area ${one.className}`, d: `M${up.join("L")}L${back.reverse().join("L")}Z` }, this.svg);
      floor = top;
    });
  }

  top(values) {
    const known = values.filter((value) => value != null);
    return this.stacked ? known.reduce((sum, value) => sum + value, 0) : Math.max(0, ...known);
  }

  point(event) {
    if (!event || this.samples.length < 2 || !this.x) {
      this.tip.hidden = true;
      this.cursor?.setAttribute("visibility", "hidden");
      return;
    }
    const box = this.host.getBoundingClientRect();
    const at = event.clientX - box.left;
    const nearest = this.samples.reduce((best, sample) =>
      Math.abs(this.x(sample.atS) - at) < Math.abs(this.x(best.atS) - at) ? sample : best);
    const x = this.x(nearest.atS);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.cursor.setAttribute("visibility", "visible");
    const ago = Math.round(this.samples.at(-1).atS - nearest.atS);
    const lines = this.series.flatMap((one, index) =>
      nearest.values[index] == null ? [] : [`${one.name} ${nearest.values[index].toFixed(1)} ${this.unit}`.trim()]);
    this.tip.textContent = [ago ? `${ago} s ago` : "now", ...(this.stacked ? lines.reverse() : lines)].join("\n");
    this.tip.hidden = false;
    this.tip.style.left = `${Math.min(Math.max(x + 10, 0), box.width - this.tip.offsetWidth - 4)}px`;
  }
}
