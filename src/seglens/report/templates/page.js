"use strict";
// What every page has: the switch of light and dark, numbers to save, and closed details that open for print.
(() => {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  function label() {
    theme.textContent = isDark() ? "Light" : "Dark";
    theme.setAttribute("aria-pressed", String(isDark()));
    theme.setAttribute("aria-label", "Dark colours");
    document.dispatchEvent(new CustomEvent("themechange"));
  }
  if (theme) {
    theme.hidden = false;
    theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
    system.addEventListener("change", label);
    label();
  }

  const save = document.getElementById("save"), numbers = document.getElementById("numbers");
  if (save && numbers) {
    save.hidden = false;
    save.addEventListener("click", () => {
      const blob = new Blob([numbers.textContent], { type: "application/json" });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = save.dataset.file || "seglens.json";
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  // Definitions: on hover, and where the keyboard is. The title stays for pages without this script.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  function define(term) {
    const text = term.dataset.tip || term.title;
    if (!text) return;
    term.dataset.tip = text;
    term.removeAttribute("title");
    term.setAttribute("aria-describedby", "tip");
    tip.textContent = text;
    tip.hidden = false;
    const box = term.getBoundingClientRect(), wide = tip.offsetWidth, tall = tip.offsetHeight;
    const below = box.bottom + tall + 12 < window.innerHeight;
    tip.style.left = Math.max(8, Math.min(window.innerWidth - wide - 8, box.left)) + "px";
    tip.style.top = (below ? box.bottom + 6 : Math.max(8, box.top - tall - 6)) + "px";
  }
  const undefine = () => { tip.hidden = true; };
  for (const [name, does] of [["mouseover", define], ["focusin", define], ["mouseout", undefine], ["focusout", undefine]]) {
    document.addEventListener(name, (event) => { const term = event.target.closest(".term"); if (term) does(term); });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") undefine(); });
  document.addEventListener("scroll", undefine, { capture: true, passive: true });

  // Pictures in tiles get large in a window of their own; the arrow keys go to the others of the same row.
  let large = null, around = [], at = 0;
  function enlarge(index) {
    at = (index + around.length) % around.length;
    const source = around[at].querySelector("img");
    large.querySelector("img").src = source.src;
    large.querySelector("img").alt = source.alt;
    large.querySelector("figcaption").textContent = source.alt;
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.zoom");
    if (!button) { if (large && event.target === large) large.close(); return; }
    if (!large) {
      large = document.createElement("dialog");
      large.className = "large";
      large.setAttribute("aria-label", "Enlarged picture");
      large.innerHTML = "<form method=dialog><button>Close</button></form><figure><img alt=''><figcaption></figcaption></figure><p class=hint>Left and right arrow keys: the other pictures beside it. Esc: close.</p>";
      large.addEventListener("keydown", (key) => {
        if (key.key === "ArrowRight") enlarge(at + 1);
        if (key.key === "ArrowLeft") enlarge(at - 1);
      });
      document.body.append(large);
    }
    around = [...(button.closest(".tiles") || document).querySelectorAll("button.zoom")].filter((each) => !each.closest("[hidden]"));
    enlarge(around.indexOf(button));
    large.showModal();
  });

  // Sections fold: whatever a link leads to opens.
  function unfold(id) {
    const place = id && document.getElementById(id);
    if (!place) return;
    for (const fold of [place.querySelector(":scope > details.fold"), place.closest("details")]) if (fold) fold.open = true;
    place.scrollIntoView();
  }
  const named = (hash) => decodeURIComponent(hash.slice(1));
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link) window.setTimeout(() => unfold(named(link.hash)));
  });
  window.addEventListener("hashchange", () => unfold(named(location.hash)));
  unfold(named(location.hash));

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.printed:not([open])")];
    for (const details of opened) details.open = true;
  });
  window.addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
})();
