// What the console does beyond htmx: pausing live parts, saying what changed, copying a new key.
"use strict";

let paused = false;

// A live part asks only while somebody can see it and has not paused it.
document.addEventListener("htmx:before:request", (event) => {
  if (event.detail.ctx.sourceElement.hasAttribute("data-live") && (paused || document.hidden)) event.preventDefault();
});

// Said aloud when it changes, not each time it is shown anew.
let announced = document.querySelector("[data-announce]")?.dataset.announce;
function announce(text) {
  if (text === undefined || text === announced) return;
  announced = text;
  document.getElementById("announcement").textContent = text;
}

document.addEventListener("htmx:after:swap", (event) => {
  const part = event.detail.ctx.sourceElement;
  if (part.hasAttribute("data-live") && event.detail.ctx.response.status < 400) {
    part.classList.remove("out-of-date");
    announce(document.querySelector("[data-announce]")?.dataset.announce);
  }
  // Whoever asked by keyboard goes on reading where the answer is.
  document.querySelector("[data-focus]")?.focus();
  document.querySelectorAll("[data-focus]").forEach((element) => element.removeAttribute("data-focus"));
});

function outOfDate(event) {
  const part = event.detail.ctx?.sourceElement;
  if (!part?.hasAttribute("data-live")) return;
  part.classList.add("out-of-date");
  announce("The server does not answer. What you see is out of date; this page goes on asking.");
}
document.addEventListener("htmx:error", outOfDate);
document.addEventListener("htmx:response:error", outOfDate);

document.querySelectorAll("[data-live-switch]").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Resume updates" : "Pause updates";
  });
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
  button.textContent = "Copied";
});
