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

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.printed:not([open])")];
    for (const details of opened) details.open = true;
  });
  window.addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
})();
