"use strict";
// Figures for Plotly, from the page's data. Texts of rows are escaped, as Plotly reads a little HTML.

const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"];
const FILLINGS = ["", "-open", "-dot", "-open-dot"]; // of symbols, where there is no line to dash
const X_TITLES = {
  samples: "Samples that all workers have seen",
  iterations: "Iterations of the run",
  worker_iterations: "Iterations of each worker",
  seconds: "Seconds since training began",
};

const escaped = (text) =>
  text.replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);
const shortened = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);

// A label on several lines, broken after commas.
function wrapped(label, length, most = 2) {
  const lines = [];
  for (const part of label.split(/(?<=, )/)) {
    const isRoom = lines.length && (lines.at(-1) + part).length <= length;
    if (isRoom || lines.length === most) lines[lines.length - 1] += part;
    else lines.push(part);
  }
  return lines.map((line) => escaped(shortened(line.trim(), length))).join("<br>");
}

const faded = (colour, part) =>
  `rgba(${[1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).join(",")},${part})`;
const isOpen = (spread, runs) => spread === null || spread.values.length < runs;

function number(value) {
  if (value !== 0 && Math.abs(value) < 0.001) return value.toPrecision(2);
  if (Math.abs(value) < 10) return value.toFixed(3);
  return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });
}

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: read("ink"), muted: read("muted"), line: read("line"), paper: read("paper"),
    series: Array.from({ length: 9 }, (_, index) => read(`series-${index}`)),
  };
}

function baseLayout(view) {
  const axis = {
    gridcolor: view.theme.line, zerolinecolor: view.theme.line, linecolor: view.theme.line,
    automargin: true,
  };
  return {
    font: { family: "system-ui, sans-serif", size: 13, color: view.theme.ink },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: view.theme.muted, activecolor: view.theme.ink },
    hoverlabel: { bgcolor: view.theme.paper, bordercolor: view.theme.muted, font: { size: 12, color: view.theme.ink }, align: "left" },
    margin: { l: 48, r: 12, t: 34, b: 48 },
    showlegend: false, hovermode: "closest", dragmode: view.touch ? false : "zoom",
    height: view.narrow ? 360 : 460, width: view.width, annotations: [], shapes: [],
    xaxis: { ...axis, title: { text: "", standoff: 8 } },
    yaxis: { ...axis, title: { text: "", standoff: 8 } },
  };
}

const named = (outcome) => wrapped(outcome.label, 32, 5);
const colourOf = (outcome, view) => view.theme.series[outcome.colour];
const symbolOf = (outcome) => SYMBOLS[outcome.symbol] + FILLINGS[outcome.dash];
const single = (data) => data.outcomes.find((outcome) => outcome.single);

function note(layout, view, text) {
  layout.annotations.push({
    text, xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false,
    font: { color: view.theme.muted },
  });
}

function bandTraces(curve, x, colour) {
  const edge = { x: curve[x], mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  return [
    { ...edge, y: curve.low },
    { ...edge, y: curve.high, fill: "tonexty", fillcolor: faded(colour, 0.16) },
  ];
}

function lineTrace(outcome, curve, x, view) {
  const colour = colourOf(outcome, view);
  const few = curve.mean.length <= 30;
  return {
    x: curve[x], y: curve.mean, mode: few ? "lines+markers" : "lines",
    line: { color: colour, width: outcome.single ? 3 : 2, dash: DASHES[outcome.dash] },
    marker: { symbol: SYMBOLS[outcome.symbol], size: 7 },
    customdata: curve.mean.map((_, at) => [curve.low[at], curve.high[at], curve.seeds]),
    text: curve.mean.map(() => named(outcome)),
    hovertemplate: "%{text}<br>%{y:.4~f} at %{x:,.4~r}<br>" +
      "%{customdata[0]:.4~f} to %{customdata[1]:.4~f}, seeds: %{customdata[2]}<extra></extra>",
  };
}

function drawCurves(data, view, choice) {
  const layout = baseLayout(view);
  layout.xaxis.title.text = X_TITLES[choice.x];
  layout.yaxis.title.text = data.quantities[choice.y];
  const found = data.outcomes.filter((outcome, at) => choice.shown.has(at) && outcome.curves[choice.y]);
  if (!found.length) note(layout, view, "No combination is chosen");
  const bands = found.flatMap((outcome) => {
    const curve = outcome.curves[choice.y];
    return curve.seeds > 1 ? bandTraces(curve, choice.x, colourOf(outcome, view)) : [];
  });
  const lines = found.map((outcome) => lineTrace(outcome, outcome.curves[choice.y], choice.x, view));
  return { traces: [...bands, ...lines], layout };
}

function spans(items, of) {
  const spreads = items.map(of);
  return {
    type: "data", symmetric: false, width: 0, thickness: 1,
    array: spreads.map((spread) => spread.high - spread.mean),
    arrayminus: spreads.map((spread) => spread.mean - spread.low),
  };
}

// Points whose names do not cover each other: of those close together the first one. All have theirs in
// the legend above.
function uncrowded(marked, items) {
  const values = items.flatMap((outcome) => outcome.final.values);
  const high = 0.12 * (Math.max(...values) - Math.min(...values));
  const wide = 0.3 * Math.max(...items.map((outcome) => outcome.seconds.high));
  const meet = (one, other) =>
    Math.abs(one.final.mean - other.final.mean) < high && Math.abs(one.seconds.mean - other.seconds.mean) < wide;
  return marked.reduce((kept, outcome) => (kept.some((other) => meet(outcome, other)) ? kept : [...kept, outcome]), []);
}

function drawTrade(data, view) {
  const layout = baseLayout(view);
  const items = data.outcomes.filter((outcome) => outcome.seconds);
  const times = items.map((outcome) => outcome.seconds.mean);
  const middle = Math.max(...times) / 2;
  layout.xaxis.title.text = "Seconds of the whole training";
  layout.yaxis.title.text = `Final ${data.metric}`;
  layout.xaxis.rangemode = "tozero";
  if (data.lowerIsBetter) layout.yaxis.autorange = "reversed";
  const base = single(data);
  if (base) {
    const line = { type: "line", line: { color: view.theme.muted, width: 1, dash: "dot" }, layer: "below" };
    layout.shapes.push(
      { ...line, xref: "paper", x0: 0, x1: 1, y0: base.final.mean, y1: base.final.mean },
      { ...line, yref: "paper", y0: 0, y1: 1, x0: base.seconds.mean, x1: base.seconds.mean },
    );
  }
  const trace = {
    x: times, y: items.map((outcome) => outcome.final.mean), mode: "markers",
    error_x: { ...spans(items, (outcome) => outcome.seconds), color: view.theme.muted },
    error_y: { ...spans(items, (outcome) => outcome.final), color: view.theme.muted },
    marker: {
      size: 12, color: items.map((outcome) => colourOf(outcome, view)), symbol: items.map(symbolOf),
      line: { width: 1.5, color: items.map((outcome) => colourOf(outcome, view)) },
    },
    text: items.map((outcome) => named(outcome) + (outcome.disturbed ? " ⚠" : "")),
    customdata: items.map((outcome) => outcome.final.values.length),
    hovertemplate: "%{text}<br>%{y:.4~f} in %{x:,.4~r} s<br>seeds: %{customdata}<extra></extra>",
  };
  const marked = items.filter((outcome) => outcome.single || (outcome.unbeaten && !view.narrow));
  layout.annotations = uncrowded(marked, items).map((outcome) => {
    const isLeft = outcome.seconds.mean < middle;
    return {
      x: outcome.seconds.mean, y: outcome.final.mean, text: wrapped(outcome.label, 34),
      showarrow: false, xanchor: isLeft ? "left" : "right", align: isLeft ? "left" : "right",
      xshift: isLeft ? 10 : -10, yanchor: "bottom", yshift: 2,
      font: { size: 12, color: colourOf(outcome, view) },
    };
  });
  return { traces: [trace], layout };
}

// A row for each combination, named at the left, or above where there is little room.
function rowLayout(labels, view) {
  const layout = baseLayout(view);
  const rows = labels.map((_, at) => labels.length - 1 - at);
  layout.height = labels.length * (view.narrow ? 52 : 34) + 100;
  Object.assign(layout.yaxis, {
    range: [-0.6, labels.length - 0.4 + (view.narrow ? 0.1 : 0)], fixedrange: true, zeroline: false,
    tickvals: rows, ticktext: labels.map((label) => wrapped(label, 40)), tickfont: { size: 12 },
    showticklabels: !view.narrow,
  });
  if (view.narrow) {
    layout.margin.l = 4;
    layout.yaxis.automargin = false;
    layout.annotations = labels.map((label, at) => ({
      xref: "paper", x: 0, xanchor: "left", y: rows[at], yanchor: "bottom", yshift: 7,
      showarrow: false, align: "left", text: wrapped(label, 52), font: { size: 11 },
    }));
  }
  return { layout, rows };
}

// Dots for seeds, a symbol for their mean. An item: outcome, spread or null, text, whether it counts.
function drawDots(items, view, title, base) {
  const { layout, rows } = rowLayout(items.map(({ outcome }) => outcome.label), view);
  const placed = items.map((item, at) => ({ ...item, row: rows[at] }));
  const there = placed.filter(({ spread }) => spread);
  const means = there.filter(({ counts }) => counts);
  const values = there.flatMap(({ spread }) => spread.values);
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const room = (high - low || Math.abs(high) || 1);
  layout.xaxis.title.text = title;
  layout.xaxis.range = [low - 0.06 * room, high + (view.narrow ? 0.42 : 0.22) * room];
  if (base !== null) {
    layout.shapes.push({
      type: "line", yref: "paper", y0: 0, y1: 1, x0: base, x1: base, layer: "below",
      line: { color: view.theme.muted, width: 1, dash: "dash" },
    });
  }
  const colours = (list) => list.map(({ outcome }) => colourOf(outcome, view));
  const names = (list) => list.map(({ outcome, text }) => `${named(outcome)}<br>${text}`);
  const seeds = there.flatMap((item) => item.spread.values.map((value) => ({ ...item, value })));
  const common = { mode: "markers", hovertemplate: "%{text}<extra></extra>" };
  return {
    layout,
    traces: [
      {
        ...common, x: seeds.map(({ value }) => value), y: seeds.map(({ row }) => row),
        text: seeds.map(({ outcome, value }) => `${named(outcome)}<br>one seed: ${number(value)}`),
        marker: { symbol: "circle-open", size: 7, color: colours(seeds) },
      },
      {
        ...common, x: means.map(({ spread }) => spread.mean), y: means.map(({ row }) => row),
        text: names(means), error_x: { ...spans(means, ({ spread }) => spread), color: view.theme.muted },
        marker: { symbol: means.map(({ outcome }) => SYMBOLS[outcome.symbol]), size: 11, color: colours(means) },
      },
      {
        x: placed.map(({ spread }) => (spread ? spread.high : low)), y: placed.map(({ row }) => row),
        mode: "text", text: placed.map(({ text }) => `  ${text}`), textposition: "middle right",
        hoverinfo: "skip", cliponaxis: false,
      },
    ],
  };
}

const byMean = (sign) => (one, other) =>
  (other.counts - one.counts) || (one.counts ? sign * (one.spread.mean - other.spread.mean) : 0);

function drawFinal(data, view) {
  const items = data.outcomes.map((outcome) => ({
    outcome, spread: outcome.final, counts: true, text: number(outcome.final.mean),
  }));
  items.sort(byMean(data.lowerIsBetter ? 1 : -1));
  const base = single(data);
  return drawDots(items, view, `Final ${data.metric}`, base ? base.final.mean : null);
}

function drawReach(data, view, choice) {
  const base = single(data)?.reach[choice.way][choice.level];
  const own = base && !isOpen(base.spread, base.runs) ? base.spread.mean : null;
  const unit = choice.way === "seconds" ? " s" : "";
  const items = data.outcomes.map((outcome) => {
    const { spread, runs } = outcome.reach[choice.way][choice.level];
    if (isOpen(spread, runs)) {
      return { outcome, spread, counts: false, text: `${spread ? spread.values.length : 0} of ${runs} got there` };
    }
    const mark = outcome.disturbed && unit ? " ⚠" : "";
    const factor = own && spread.mean ? ` · ${(own / spread.mean).toFixed(2)}×` : "";
    return { outcome, spread, counts: true, text: number(spread.mean) + unit + factor + mark };
  });
  items.sort(byMean(1));
  const title = choice.way === "seconds" ? "Seconds to the level" : "Samples to the level";
  return drawDots(items, view, title, own);
}

function drawSteady(data, view, choice) {
  const items = data.outcomes.filter((outcome) => outcome.last).map((outcome) => {
    const spread = outcome[choice.steadiness];
    return { outcome, spread, counts: true, text: number(spread.mean) };
  });
  items.sort(byMean(1));
  const base = single(data)?.[choice.steadiness];
  const title = choice.steadiness === "last" ? "Standard deviation" : "Largest fall";
  return drawDots(items, view, `${title} of ${data.metric}`, base ? base.mean : null);
}

function drawCosts(data, view) {
  const items = data.outcomes.filter((outcome) => outcome.exchangeShare !== null);
  items.sort((one, other) => one.exchangeShare - other.exchangeShare);
  const { layout, rows } = rowLayout(items.map((outcome) => outcome.label), view);
  Object.assign(layout, { barmode: "stack", showlegend: true, bargap: view.narrow ? 0.75 : 0.3 });
  layout.legend = { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", traceorder: "normal" };
  Object.assign(layout.xaxis, { tickformat: ".0%", range: [0, view.narrow ? 1.15 : 1.08], tickvals: [0, 0.25, 0.5, 0.75, 1], fixedrange: true });
  layout.yaxis.showgrid = false;
  const bar = (name, colour, of) => ({
    type: "bar", orientation: "h", name, x: items.map(of), y: rows, marker: { color: colour },
    text: items.map(named), textposition: "none",
    hovertemplate: `%{text}<br>${name}: %{x:.1%}<extra></extra>`,
  });
  layout.annotations.push(...items.map((outcome, at) => ({
    x: 1, y: rows[at], xanchor: "left", xshift: 4, showarrow: false,
    text: `${(100 * outcome.exchangeShare).toFixed(0)} %`,
  })));
  return {
    layout,
    traces: [
      bar("computing", view.theme.series[1], (outcome) => 1 - outcome.exchangeShare),
      bar("exchanging", view.theme.series[2], (outcome) => outcome.exchangeShare),
    ],
  };
}

function drawStaleness(data, view, choice) {
  const layout = baseLayout(view);
  layout.xaxis.title.text = "Updates of others in between";
  layout.xaxis.rangemode = layout.yaxis.rangemode = "tozero";
  layout.yaxis.title.text = "Share of exchanges";
  layout.yaxis.tickformat = ".0%";
  const found = data.outcomes.filter((outcome, at) =>
    choice.shown.has(at) && Object.keys(outcome.staleness).length);
  if (!found.length) note(layout, view, "None of the chosen combinations has a centre");
  const most = Math.max(0, ...found.flatMap((outcome) => Object.keys(outcome.staleness).map(Number)));
  layout.xaxis.dtick = Math.ceil((most + 1) / 10);
  const traces = found.map((outcome) => ({
    x: Object.keys(outcome.staleness).map(Number), y: Object.values(outcome.staleness),
    mode: "lines+markers", text: Object.keys(outcome.staleness).map(() => named(outcome)),
    line: { color: colourOf(outcome, view), width: 2, dash: DASHES[outcome.dash] },
    marker: { symbol: SYMBOLS[outcome.symbol], size: 8 },
    hovertemplate: "%{text}<br>staleness %{x}: %{y:.1%} of exchanges<extra></extra>",
  }));
  return { traces, layout };
}
