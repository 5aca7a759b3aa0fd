"use strict";
// Why missed, why invented: the evidence of one map over each picture, and a button for each other map.
(() => {
  for (const element of document.querySelectorAll(".case")) {
    const stage = element.querySelector(".stage"), row = Maps.album.cards[Number(stage.dataset.card)];
    const place = element.querySelector(".scale"), buttons = [...element.querySelectorAll(".pick")];
    const show = async (number) => {
      const map = row.maps[number], limits = Maps.limitsOf(map, { evidence: true });
      stage.dataset.map = String(number);
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.map === String(number)));
      place.hidden = map.levels === undefined;
      Maps.bar(place.querySelector("canvas"), limits);
      const ends = place.querySelectorAll(".end");
      ends[0].textContent = "against " + Maps.text(limits[0]);
      ends[1].textContent = Maps.text(limits[1]) + " for";
      element.querySelector(".unit").textContent = Maps.nameOf(map) + (map.unit ? ", " + map.unit : "");
      await Stage.draw(stage, row, { map, evidence: true, limits, opacity: 0.85, marks: { target: true }, side: 320 });
    };
    for (const button of buttons) button.addEventListener("click", () => show(Number(button.dataset.map)));
    stage.addEventListener("click", () => {
      const number = Number(stage.dataset.map), map = row.maps[number];
      Viewer.open(row, map, [row], { second: (map.floored ? "evidence:" : "map:") + number });
    });
    const image = row.image;
    (image ? image.decode().catch(() => null) : Promise.resolve()).then(() => show(Number(stage.dataset.map)));
  }
})();
