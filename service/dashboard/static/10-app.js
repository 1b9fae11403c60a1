(() => {
  "use strict";
  const root = document.documentElement;
  const prefix = root.dataset.prefix;
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  // --- times: "3 min ago" stays true while the page is open
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];
  const inWords = (seconds) => {
    const [size, unit] = UNITS.find(([size]) => seconds >= size) || [1, "s"];
    return `${Math.floor(seconds / size)} ${unit}`;
  };
  const tick = () => all("time[data-ago]").forEach((time) => {
    const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
    const words = inWords(Math.abs(seconds));
    const text = Math.abs(seconds) < 1 ? "now" : seconds < 0 ? `in ${words}` : `${words} ago`;
    if (time.textContent !== text) time.textContent = text;
  });

  // --- pictures of others: a link may be dead by now
  const judge = (picture) => {
    if (picture.complete && !picture.naturalWidth && picture.currentSrc) picture.setAttribute("data-ui-broken", "");
  };
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement) event.target.setAttribute("data-ui-broken", "");
  }, true);

  // --- the parts of a page that follow what happens
  let looking = false, again = false, timer = 0, source = null, lastLook = 0;
  const isHeld = () => document.hidden || document.querySelector("dialog[open]");
  const state = (name) => all("[data-live-state]").forEach((place) => {
    place.dataset.liveState = name;
    place.lastElementChild.textContent = name === "late" ? "Reconnecting" : "Live";
  });
  const callbacks = {
    beforeAttributeUpdated: (name, node, kind) =>
      !(name.startsWith("data-ui-") || (name === "open" && node.tagName === "DETAILS") || (kind === "remove" && name === "disabled")),
    beforeNodeMorphed: (old) => !(old instanceof Element && old.hasAttribute("data-keep")),
  };
  const look = async () => {
    if (looking) { again = true; return; }
    looking = true;
    try {
      const reply = await fetch(location.href, { headers: { "X-Live": "1" }, credentials: "same-origin" });
      if (reply.status === 401) { location.reload(); return; }
      if (!reply.ok) throw new Error(String(reply.status));
      const next = new DOMParser().parseFromString(await reply.text(), "text/html");
      for (const place of all("[data-live]")) {
        const found = next.getElementById(place.id);
        if (found && found.outerHTML !== place.outerHTML) Idiomorph.morph(place, found, { morphStyle: "outerHTML", callbacks });
      }
      if (document.title !== next.title) document.title = next.title;
      state("on");
      tick();
    } catch { state("late"); } finally {
      looking = false; lastLook = Date.now();
      if (again) { again = false; soon(); }
    }
  };
  const soon = () => {
    if (isHeld()) { again = true; return; }
    clearTimeout(timer);
    timer = setTimeout(look, Math.max(250, 1500 - (Date.now() - lastLook)));
  };
  const follow = () => {
    if (source || !document.querySelector("[data-live]")) return;
    source = new EventSource(`${prefix}/live`);
    source.onopen = () => state("on");
    source.onerror = () => state("late");
    source.addEventListener("changed", soon);
  };
  const unfollow = () => { if (source) { source.close(); source = null; } };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { unfollow(); return; }
    if (document.querySelector("[data-live]")) { follow(); soon(); }
  });
  addEventListener("pagehide", unfollow);
  addEventListener("pageshow", (event) => { if (event.persisted) { follow(); soon(); } });

  // --- theme: kept in a cookie, so that the server draws the next page right at once
  const THEMES = ["system", "dark", "light"];
  const setTheme = (name) => {
    if (name === "system") root.removeAttribute("data-theme"); else root.dataset.theme = name;
    const life = name === "system" ? 0 : 31536000;
    document.cookie = `taskhook_theme=${name}; Path=${prefix || "/"}; Max-Age=${life}; SameSite=Lax`;
    all("[data-theme-name]").forEach((place) => { place.textContent = name; });
  };

  // --- clicks
  const copy = async (button) => {
    const from = button.dataset.copyFrom;
    const text = from ? document.getElementById(from).textContent : button.dataset.copy;
    try { await navigator.clipboard.writeText(text); } catch {
      const field = Object.assign(document.createElement("textarea"), { value: text, className: "visually-hidden" });
      document.body.append(field); field.select(); document.execCommand("copy"); field.remove(); button.focus();
    }
    const label = button.getAttribute("aria-label");
    button.setAttribute("data-ui-done", ""); button.setAttribute("aria-label", "Copied");
    setTimeout(() => { button.removeAttribute("data-ui-done"); button.setAttribute("aria-label", label); }, 1400);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) {
      if (event.target instanceof HTMLDialogElement) event.target.close();
      return;
    }
    if (button.dataset.copy !== undefined || button.dataset.copyFrom) copy(button);
    if (button.dataset.dialog) document.getElementById(button.dataset.dialog)?.showModal();
    if (button.dataset.close !== undefined) button.closest("dialog").close();
    if (button.dataset.themeToggle !== undefined) {
      const now = root.dataset.theme || "system";
      setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
    }
  });
  document.addEventListener("close", () => { if (again) { again = false; soon(); } }, true);

  // --- forms: sent once, and filters as soon as they change
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.once === undefined) return;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "1";
    setTimeout(() => all("button[type=submit]", form).forEach((one) => { one.disabled = true; }), 0);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-submit]")) event.target.form.requestSubmit();
  });
  addEventListener("pageshow", () => all("form[data-sent]").forEach((form) => {
    delete form.dataset.sent;
    all("button[type=submit]", form).forEach((one) => { one.disabled = false; });
  }));

  // --- keys
  let before = "";
  const step = (by) => {
    const rows = all("a.row");
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement);
    rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + by))].focus();
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const search = document.querySelector("[data-search]");
    if (event.key === "/" && search) { event.preventDefault(); search.focus(); search.select(); }
    else if (event.key === "?") document.getElementById("shortcuts")?.showModal();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (before === "g") document.querySelector(`a[data-key="${CSS.escape(event.key)}"]`)?.click();
    before = event.key;
  });

  // --- the link that `taskhook dev` prints: its code signs in once, in a fragment that no server sees
  const door = document.querySelector("form[data-sign-in]");
  if (location.hash.startsWith("#code=")) {
    const code = decodeURIComponent(location.hash.slice(6));
    history.replaceState(null, "", location.pathname + location.search);
    if (door) {
      door.elements.code.value = code;
      door.submit();
    }
  }

  tick();
  all("img").forEach(judge);
  if (!document.hidden) follow();
  setInterval(tick, 1000);
  setInterval(() => { if (document.querySelector("[data-live]") && !isHeld() && Date.now() - lastLook > 4000) look(); }, 1000);
})();
