// Lines over time as SVG: what is missing is a gap, spans in which a scenario was on are shaded.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 380, HEIGHT = 170, LEFT = 44, RIGHT = 372, TOP = 18, BASE = 146;
// As in the reports: an arm looks the same everywhere.
const COLOURS = { online: "c3", frozen: "c0" };
const OTHERS = ["c2", "c4", "c1", "k0", "k2"];

// Nodes, never markup: names come from others.
export function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return filled(made, attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Three to six round numbers that hold [low, high].
export function ticks(low, high) {
  const raw = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw * (1 - 1e-9));
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, place) => (first + place) * step);
}

export function said(value, spec) {
  if (value === undefined || value === null) return "–";
  if (spec.percent) return `${(value * 100).toFixed(value < 0.1 ? 2 : 1)} %`;
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  const text = value.toLocaleString("en", { maximumFractionDigits: digits });
  return spec.unit ? `${text} ${spec.unit}` : text;
}

export function colour(name, place, spec) {
  return spec.colours?.[name] ?? COLOURS[name] ?? OTHERS[place % OTHERS.length];
}

// The names of a chart's lines: those that are declared, then whatever else has its prefix.
export function lineNames(points, spec) {
  const found = new Set();
  for (const point of points) for (const key of Object.keys(point.v)) if (key.startsWith(spec.id + ".")) found.add(key.slice(spec.id.length + 1));
  const declared = (spec.lines ?? []).filter((name) => found.has(name));
  const others = spec.only ? [] : [...found].filter((name) => !declared.includes(name)).sort();
  return [...declared, ...others];
}

export class Chart {
  constructor(spec) {
    this.spec = spec;
    this.picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": spec.title });
    this.legend = node("p", { class: "legend" });
    this.gone = node("p", { class: "gone" });
    this.card = node("section", { class: "card", id: `chart-${spec.id}` },
      node("h3", {}, spec.title), node("p", { class: "text" }, spec.note), this.picture, this.legend, this.gone);
    this.at = null;
    const point = (event) => {
      const box = this.picture.getBoundingClientRect();
      this.at = ((event.clientX - box.left) / box.width) * WIDTH;
      this.redraw();
    };
    this.picture.addEventListener("pointermove", point);
    this.picture.addEventListener("pointerdown", point);
    this.picture.addEventListener("pointerleave", () => { this.at = null; this.redraw(); });
  }

  // points: those of the span that is shown; missing: why nothing comes at present, or "".
  draw(points, fromMs, untilMs, missing) {
    this.shown = { points, fromMs, untilMs };
    this.gone.textContent = missing;
    this.redraw();
  }

  redraw() {
    if (!this.shown) return;
    const { points, fromMs, untilMs } = this.shown;
    const spec = this.spec, names = lineNames(points, spec);
    const values = points.flatMap((point) => names.map((name) => point.v[`${spec.id}.${name}`])).filter((one) => one !== undefined);
    const across = (ms) => LEFT + ((RIGHT - LEFT) * (ms - fromMs)) / (untilMs - fromMs || 1);
    const parts = [...bands(points, across, untilMs)];
    if (!values.length) {
      parts.push(edge(), text((LEFT + RIGHT) / 2, (TOP + BASE) / 2, "nothing to show yet", "middle", "nothing"));
      this.legend.replaceChildren();
      this.picture.replaceChildren(...parts, ...times(fromMs, untilMs, across));
      return;
    }
    const low = Math.min(spec.low ?? 0, ...values), high = Math.max(spec.high ?? -Infinity, ...values);
    const marks = ticks(low, high === low ? low + (Math.abs(low) || 1) : high);
    const bottom = marks[0], top = marks[marks.length - 1];
    const up = (value) => BASE - ((BASE - TOP) * (value - bottom)) / (top - bottom);
    for (const mark of marks) {
      parts.push(drawn("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: up(mark), y2: up(mark) }));
      parts.push(text(LEFT - 6, up(mark) + 4, axis(mark, top, spec), "end", "axis"));
    }
    parts.push(edge(), ...times(fromMs, untilMs, across));
    names.forEach((name, place) => {
      for (const stretch of stretches(points, `${spec.id}.${name}`)) {
        const path = stretch.map(([ms, value]) => `${across(ms).toFixed(1)},${up(value).toFixed(1)}`);
        if (path.length === 1) path.push(path[0]);
        const dashed = spec.dashed?.includes(name) ? " dashed" : "";
        parts.push(drawn("polyline", { class: `${colour(name, place, spec)} path${dashed}`, "stroke-linecap": "round", points: path.join(" ") }));
      }
    });
    const chosen = this.chosen(points, across);
    if (this.at !== null && chosen) parts.push(drawn("line", { class: "cursor", x1: across(chosen.t), x2: across(chosen.t), y1: TOP, y2: BASE }));
    this.picture.replaceChildren(...parts);
    this.legend.replaceChildren(...names.map((name, place) => {
      const dashed = spec.dashed?.includes(name) ? " dashed" : "";
      const key = node("i", { class: `${colour(name, place, spec)} key${dashed}` });
      return node("span", {}, key, `${spec.names?.[name] ?? name} `, node("b", {}, said(chosen?.v[`${spec.id}.${name}`], spec)));
    }));
  }

  // The look that is pointed at; else the newest.
  chosen(points, across) {
    if (this.at === null) return points[points.length - 1];
    return points.reduce((best, one) => (Math.abs(across(one.t) - this.at) < Math.abs(across(best.t) - this.at) ? one : best), points[0]);
  }
}

function axis(value, top, spec) {
  if (spec.percent) return `${Number((value * 100).toPrecision(3))} %`;
  if (Math.abs(top) >= 10_000) return `${Number((value / 1000).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
}

function edge() {
  return drawn("line", { class: "edge", x1: LEFT, x2: RIGHT, y1: BASE, y2: BASE });
}

function text(x, y, words, anchor, kind) {
  return drawn("text", { class: kind, x, y, "text-anchor": anchor }, words);
}

function* times(fromMs, untilMs, across) {
  const minutes = (untilMs - fromMs) / 60_000;
  const step = minutes > 8 ? 5 : minutes > 3 ? 2 : 1;
  for (let back = step; back <= minutes + 1e-6; back += step) {
    const at = across(untilMs - back * 60_000);
    yield drawn("line", { class: "edge", x1: at, x2: at, y1: BASE, y2: BASE + 4 });
    yield text(Math.max(at, LEFT), BASE + 17, `−${back} min`, "middle", "axis");
  }
  yield text(RIGHT, BASE + 17, "now", "end", "axis");
}

function* bands(points, across, untilMs) {
  const names = [...new Set(points.flatMap((point) => point.on))];
  for (const [place, name] of names.entries()) {
    // One above the chart, others below each other inside it.
    const y = place ? TOP + 12 * place : TOP - 5;
    let from = null;
    for (const point of [...points, null]) {
      const on = point?.on.includes(name);
      if (on && from === null) from = point.t;
      if (!on && from !== null) {
        const until = point ? point.t : untilMs;
        const x = across(from), width = Math.max(2, across(until) - x);
        yield drawn("rect", { class: "band", x, y: TOP, width, height: BASE - TOP }, drawn("title", {}, name));
        const end = x + 6.5 * name.length > RIGHT;
        yield text(end ? RIGHT : x, y, name, end ? "end" : "start", "axis band-name");
        from = null;
      }
    }
  }
}

function* stretches(points, key) {
  let stretch = [];
  for (const point of points) {
    const value = point.v[key];
    if (value !== undefined) stretch.push([point.t, value]);
    else if (stretch.length) { yield stretch; stretch = []; }
  }
  if (stretch.length) yield stretch;
}
