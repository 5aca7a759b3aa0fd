"use strict";
// The comparison: choose maps and pictures, and sort the table.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const kind = document.getElementById("kind"), why = document.getElementById("why");
  const shown = document.getElementById("shown"), cards = all("article.card");

  function choose() {
    for (const row of all(".map-row")) row.hidden = Boolean(kind && kind.value && row.dataset.kind !== kind.value);
    for (const card of cards) card.hidden = Boolean(why.value && !card.dataset.why.includes(why.value));
    shown.value = `${cards.filter((card) => !card.hidden).length} of ${cards.length} pictures`;
  }
  if (why) {
    for (const select of [kind, why]) if (select) select.addEventListener("change", choose);
    choose();
  }

  for (const table of all("table.sortable")) {
    const heads = all("thead th", table), body = table.tBodies[0];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = (row) => row.cells[column].textContent.trim();
      const value = (row) => (Number.isNaN(parseFloat(text(row))) ? -Infinity : parseFloat(text(row)));
      const order = column ? (a, b) => value(b) - value(a) : (a, b) => text(b).localeCompare(text(a));
      const rows = [...body.rows].sort(order);
      body.append(...(down ? rows : rows.reverse()));
    }));
  }
})();
