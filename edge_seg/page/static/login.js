const form = document.getElementById("login");
const token = document.getElementById("token");
const error = document.getElementById("error");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  error.hidden = true;
  try {
    const answer = await fetch("login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: token.value }),
    });
    if (answer.ok) {
      location.replace("./");
      return;
    }
    error.textContent = answer.status === 403 ? "That is not the token." : `The daemon answered ${answer.status}.`;
  } catch {
    error.textContent = "The daemon does not answer.";
  }
  error.hidden = false;
  token.select();
});

// Until here, a click would have sent the form by the browser's own means, which the page's policy forbids.
form.querySelector("button").disabled = false;
