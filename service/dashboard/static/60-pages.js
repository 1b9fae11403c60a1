(() => {
  "use strict";

  // --- on a phone the pages are a row that scrolls: where one is must be seen
  const here = document.querySelector(".side nav [aria-current]"), row = here?.closest("nav");
  if (row && row.scrollWidth > row.clientWidth) row.scrollLeft = here.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;

  // --- what was shown in answer to a form: a reload leads on, and does not send the form again
  const address = document.querySelector("[data-address]");
  if (address) history.replaceState(null, "", address.dataset.address);

  // --- a form that takes a while says so
  document.addEventListener("submit", (event) => {
    const text = event.target.dataset.busy;
    if (text) event.target.querySelector("button[type=submit]").lastChild.textContent = text;
  });

  // --- the playground: what is entered is checked, and becomes the request to paste
  const composer = document.querySelector("form[data-preview]");
  if (!composer) return;
  let timer = 0, number = 0;
  const callbacks = {
    beforeAttributeUpdated: (name, node, kind) =>
      !((name === "open" && node.tagName === "DETAILS") || name === "data-sent" || name === "aria-pressed" || (name === "disabled" && kind === "remove")),
  };
  const morph = (id, next) => {
    const old = document.getElementById(id), found = next.getElementById(id);
    if (old && found) Idiomorph.morph(old, found, { morphStyle: "outerHTML", ignoreActiveValue: true, callbacks });
  };
  const preview = async () => {
    const mine = ++number;
    const reply = await fetch(composer.dataset.preview, {
      method: "POST", body: new URLSearchParams(new FormData(composer)), headers: { "X-Live": "1" }, credentials: "same-origin",
    });
    if (reply.status === 401) { location.reload(); return; }
    const next = new DOMParser().parseFromString(await reply.text(), "text/html");
    if (mine !== number || !reply.ok) return;
    morph("composer", next);
    morph("snippet", next);
    press();
  };
  const soon = (wait) => { number += 1; clearTimeout(timer); timer = setTimeout(() => preview().catch(() => {}), wait); };
  composer.addEventListener("input", (event) => soon(event.target.tagName === "SELECT" ? 0 : 350));

  // --- the words that make the sandbox misbehave
  const words = () => [...document.querySelectorAll("[data-word]")];
  const has = (field, word) => field.value.split(/\s+/).includes(word);
  const press = () => words().forEach((button) => {
    button.setAttribute("aria-pressed", String(has(document.getElementById(button.dataset.into), button.dataset.word)));
  });
  composer.addEventListener("click", (event) => {
    const button = event.target.closest("[data-word]");
    if (!button) return;
    const field = document.getElementById(button.dataset.into), word = button.dataset.word;
    const rest = field.value.split(/\s+/).filter((one) => one && one !== word);
    field.value = has(field, word) ? rest.join(" ") : `${field.value.trimEnd() || "a lighthouse at dusk"} ${word}`;
    press();
    soon(0);
  });
  press();
})();
