"use strict";
// The gallery: sorting, finding, switching heat maps, enlarging. Without this script everything is shown.
(() => {
  const form = document.getElementById("controls");
  const list = document.getElementById("cards");
  const cards = list ? [...list.children] : [];

  const gaps = new Map();
  for (const card of cards) {
    const key = card.dataset.split + "\n" + card.dataset.name;
    const dice = parseFloat(card.dataset.dice);
    if (!Number.isNaN(dice)) gaps.set(key, [...(gaps.get(key) || []), dice]);
  }
  for (const card of cards) {
    const all = gaps.get(card.dataset.split + "\n" + card.dataset.name) || [];
    card.dataset.gap = all.length > 1 ? Math.max(...all) - Math.min(...all) : "";
  }

  // A missing number comes last, whichever way the cards are sorted.
  const compare = (key, sign) => (one, other) => {
    const a = one.dataset[key], b = other.dataset[key];
    const byName = one.dataset.name.localeCompare(other.dataset.name) || one.dataset.run.localeCompare(other.dataset.run);
    if (key === "name") return byName;
    if (a === "" || b === "") return (a === "") - (b === "") || byName;
    return sign * (parseFloat(a) - parseFloat(b)) || byName;
  };

  const chosen = (name) => (form.elements[name] ? form.elements[name].value : "");

  function arrange() {
    const sort = chosen("sort");
    const below = parseFloat(chosen("below"));
    const text = chosen("find").toLowerCase();
    const run = chosen("run");
    const sign = sort.startsWith("-") ? -1 : 1;
    let shown = 0;
    for (const card of [...cards].sort(compare(sort.replace("-", ""), sign))) {
      const dice = parseFloat(card.dataset.dice);
      card.hidden = !card.dataset.name.toLowerCase().includes(text)
        || (run !== "" && card.dataset.run !== run)
        || (!Number.isNaN(below) && !(dice < below));
      shown += !card.hidden;
      list.append(card);
    }
    form.elements.count.value = shown + " of " + cards.length + " shown";
  }

  function switchHeat() {
    const wanted = { method: chosen("method"), layer: chosen("layer"), target: chosen("target") };
    for (const figure of list.querySelectorAll("figure.heat")) {
      // A map of the input has no layer: it belongs to every choice of layer.
      figure.hidden = Object.entries(wanted).some(
        ([key, value]) => value && value !== "*" && figure.dataset[key] && figure.dataset[key] !== value);
    }
  }

  if (form && list) {
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => { arrange(); switchHeat(); });
    arrange();
    switchHeat();
  }

  const viewer = document.getElementById("viewer");
  let around = [], at = 0;
  function show(index) {
    at = (index + around.length) % around.length;
    const image = viewer.querySelector("img");
    const source = around[at].querySelector("img");
    image.src = source.src;
    image.alt = source.alt;
    viewer.querySelector("figcaption").textContent = source.alt;
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.zoom");
    if (!button) { if (event.target === viewer) viewer.close(); return; }
    around = [...button.closest(".tiles").querySelectorAll("figure:not([hidden]) button.zoom")];
    show(around.indexOf(button));
    viewer.showModal();
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") show(at + 1);
    if (event.key === "ArrowLeft") show(at - 1);
  });
})();
