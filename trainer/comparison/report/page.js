"use strict";
// Draws the charts that the page has, again whenever a choice, the room, the theme or the medium changes.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const charts = {
    trade: drawTrade, curves: drawCurves, final: drawFinal, reach: drawReach,
    steady: drawSteady, costs: drawCosts, staleness: drawStaleness,
  };
  const paperWidth = 680; // of an A4 page within its margins
  const narrow = matchMedia("(max-width: 640px)");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(hover: none)");
  const print = matchMedia("print");
  const boxes = [...document.querySelectorAll("#legend input")];
  let printing = false;
  let opened = [];

  const radio = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
  const choices = () => ({
    shown: new Set(boxes.filter((box) => box.checked).map((box) => Number(box.dataset.outcome))),
    x: radio("x"), y: radio("y"), steadiness: radio("steadiness"),
    way: data.level === null ? null : radio("way"),
    level: Number(document.getElementById("level")?.value),
  });

  function draw(names = Object.keys(charts)) {
    const view = {
      theme: readTheme(), narrow: narrow.matches && !printing, touch: touch.matches,
      width: printing ? paperWidth : undefined,
    };
    const config = {
      displaylogo: false, showSendToCloud: false, plotlyServerURL: "", responsive: true, displayModeBar: touch.matches ? true : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    };
    for (const name of names) {
      const place = document.getElementById(`chart-${name}`);
      if (!place) continue;
      const { traces, layout } = charts[name](data, view, choices());
      layout.autosize = !printing;
      Plotly.react(place, traces, layout, config);
    }
  }

  function setPrinting(now) {
    if (now === printing) return;
    printing = now;
    document.documentElement.toggleAttribute("data-print", now);
    if (now) {
      opened = [...document.querySelectorAll("details:not([open])")];
    }
    for (const details of opened) details.open = now;
    draw();
  }

  const drawn = { x: ["curves"], y: ["curves"], way: ["reach"], steadiness: ["steady"] };
  document.addEventListener("change", ({ target }) => {
    if (target.id === "level") draw(["reach"]);
    else if (target.type === "radio") draw(drawn[target.name]);
    else if (target.type === "checkbox") draw(["curves", "staleness"]);
  });
  document.getElementById("legend").addEventListener("click", ({ target }) => {
    const wanted = target.dataset.show;
    if (!wanted) return;
    for (const box of boxes) {
      box.checked = wanted === "all" || (wanted === "first" && data.outcomes[box.dataset.outcome].shown);
    }
    draw(["curves", "staleness"]);
  });
  narrow.addEventListener("change", () => draw());
  dark.addEventListener("change", () => draw());
  print.addEventListener("change", () => setPrinting(print.matches));
  addEventListener("beforeprint", () => setPrinting(true));
  addEventListener("afterprint", () => setPrinting(false));
  if (print.matches) setPrinting(true);
  else draw();
})();
