// The page: follows /api/stream, draws what it says, and says when nothing comes any more.

import { Chart, node, said } from "./charts.js";

const FEW_MS = 5 * 60_000, ALL_MS = 15 * 60_000;
const RETRY_MS = 2_000, MAX_RETRY_MS = 60_000;
const STAGES = ["collect", "join", "train", "publish", "apply"];
const STAGE_COLOURS = { collect: "c2", join: "k0", train: "c4", publish: "c3", apply: "c1", all: "c0" };
const WORKERS = { joiner: "joiner", feature_pipeline: "features", trainer: "trainer" };
const CHARTS = [
  { id: "requests", title: "Requests", note: "asked of the gateway", unit: "/s", needs: ["gateway"],
    lines: ["answered", "failed"], colours: { answered: "c3", failed: "c1" } },
  { id: "latency", title: "Answer time", note: "in the gateway, without the way to the client", unit: "ms", needs: ["gateway"],
    lines: ["p50", "p99"], colours: { p50: "c2", p99: "c1" }, dashed: ["p99"] },
  { id: "ctr", title: "Click rate, by arm", note: "of items shown in the last minute", percent: true, needs: ["release"],
    lines: ["online", "frozen"] },
  { id: "auc", title: "AUC, by arm", note: "of what was served in the last minute; 0.5 is a coin", needs: ["release"], low: 0.5,
    lines: ["online", "frozen"] },
  { id: "fresh", title: "Click to served model", note: "median of each stage, and their sum", unit: "s",
    needs: ["collector", "joiner", "trainer", "ranking"], lines: [...STAGES, "all"], colours: STAGE_COLOURS, dashed: ["all"],
    names: { all: "sum" } },
  { id: "samples", title: "Samples", note: "rows joined, and rows trained", unit: "/s", needs: ["joiner", "trainer"],
    lines: ["positive", "negative", "rejected", "trained"],
    colours: { positive: "c3", negative: "c0", rejected: "c1", trained: "c4" }, dashed: ["trained"] },
  { id: "lag", title: "Lag", note: "records that each worker has not read yet", needs: Object.keys(WORKERS).map((one) => `${one} status`),
    lines: Object.keys(WORKERS), names: WORKERS, colours: { joiner: "k0", feature_pipeline: "c2", trainer: "c4" } },
  { id: "share", title: "Answers, by arm", note: "scored answers of the gateway, by the arm that served", unit: "/s", needs: ["gateway"],
    lines: ["online", "frozen"] },
  { id: "age", title: "Age of the served model", note: "since its newest update was made; the oldest replica of each arm", unit: "s",
    needs: ["ranking", "releases"], lines: ["online"] },
];

const byId = (id) => document.getElementById(id);
const charts = CHARTS.map((spec) => new Chart(spec));
const state = { points: [], tables: {}, sources: new Map(), heardAt: 0, skewMs: 0, intervalMs: 2_000, spanMs: FEW_MS };
let stream = null, retryMs = RETRY_MS, again = null;

// -- the stream

function connect() {
  clearTimeout(again);
  stream?.close();
  stream = new EventSource("/api/stream");
  let first = true;
  stream.onmessage = (event) => {
    const news = JSON.parse(event.data);
    // A stream begins with all that there is: what was known before may be of a service that has started again.
    state.points = first ? news.points : [...state.points, ...news.points];
    first = false;
    retryMs = RETRY_MS;
    take(news);
  };
  stream.onerror = () => {
    first = true;
    // A browser comes back by itself after a cut, and gives up after a refusal.
    if (stream.readyState === EventSource.CLOSED) {
      again = setTimeout(connect, retryMs);
      retryMs = Math.min(2 * retryMs, MAX_RETRY_MS);
    }
  };
}

function take(news) {
  state.tables = news.tables;
  state.sources = new Map(news.sources.map((one) => [one.name, one]));
  state.intervalMs = news.interval_ms;
  state.skewMs = news.now_ms - Date.now();
  state.heardAt = Date.now();
  const oldest = news.now_ms - ALL_MS;
  state.points = state.points.filter((point) => point.t >= oldest);
  show();
}

// A phone in a pocket needs no looks.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream?.close();
  else connect();
});

// -- what is missing

function missing(name) {
  const source = state.sources.get(name);
  if (!source || source.state === "live" || source.state === "partial") return "";
  if (source.state === "unset") return `${name}: the page is not told where it is`;
  return `${name} does not answer${source.heard_ms ? ` since ${clock(source.heard_ms)}` : ""} (${short(source.error)})`;
}

function short(error) {
  return error.replace(/^\S+:\d+: /, "");
}

function pulse() {
  const silentMs = Date.now() - state.heardAt;
  const silent = state.heardAt > 0 && silentMs > Math.max(3 * state.intervalMs, 6_000);
  const trouble = byId("trouble");
  document.querySelectorAll("main > section, .cards, .cards2").forEach((part) => part.classList.toggle("old", silent));
  if (!state.heardAt) {
    byId("pulse").textContent = "Waiting for the page's service …";
    return;
  }
  trouble.hidden = !silent;
  trouble.textContent = silent ? `The page's service has said nothing since ${clock(state.heardAt + state.skewMs)}. What stands below is from then. Trying again …` : "";
  if (silent) {
    byId("pulse").textContent = "";
    return;
  }
  const all = [...state.sources.values()].filter((one) => one.state !== "unset");
  const gone = all.filter((one) => one.state === "missing").map((one) => one.name);
  const partly = all.filter((one) => one.state === "partial").map((one) => one.name);
  const told = gone.filter((one) => one !== "scenarios");
  byId("pulse").textContent = `Last look ${clock(state.heardAt + state.skewMs)}. ` +
    (told.length ? `No answer from: ${told.join(", ")}. ` : "All services answer. ") +
    (partly.length ? `Some replicas are missing of: ${partly.join(", ")}. ` : "") +
    (gone.includes("scenarios") ? "No load is running. " : "");
}

// -- drawing

function show() {
  const untilMs = Date.now() + state.skewMs;
  const points = state.points.filter((point) => point.t >= untilMs - state.spanMs);
  const fromMs = Math.max(untilMs - state.spanMs, Math.min(points[0]?.t ?? untilMs, untilMs - 60_000));
  for (const chart of charts) {
    const why = chart.spec.needs.map(missing).filter(Boolean).join("; ");
    chart.draw(points, fromMs, untilMs, why);
  }
  showScenarios();
  showArms();
  showModels();
  showGenerations();
  showSamples();
  showStages();
  showSources();
  pulse();
}

// A header that begins with # is of a column of numbers.
function table(id, header, rows, empty) {
  const place = byId(id);
  if (!rows.length) {
    place.replaceChildren(node("p", { class: "gone" }, empty));
    return;
  }
  place.replaceChildren(grid(header, rows));
}

function grid(header, rows) {
  const kind = (place) => (header[place].startsWith("#") ? "" : "words");
  const cell = (one, place) => node("td", { class: kind(place) }, one instanceof Node ? one : String(one ?? "–"));
  return node("table", {},
    node("thead", {}, node("tr", {}, ...header.map((one, place) => node("th", { scope: "col", class: kind(place) }, one.replace("#", ""))))),
    node("tbody", {}, ...rows.map((row) => node("tr", {}, ...row.map(cell)))));
}

function badge(word) {
  return node("span", { class: `state ${word}` }, word.replace("_", " ") || "–");
}

function newest() {
  return state.points[state.points.length - 1]?.v ?? {};
}

function showArms() {
  const served = state.tables.served ?? {}, known = state.tables.releases?.arms ?? [];
  const names = [...new Set([...known.map((one) => one.arm), ...Object.keys(served)])];
  const rows = names.map((name) => {
    const arm = known.find((one) => one.arm === name), figures = served[name] ?? {};
    const follows = arm ? `${arm.generation}/${arm.policy}${arm.pinned === null ? "" : `, pinned to ${arm.pinned}`}` : "–";
    return [name, said(figures.ctr, { percent: true }), ...["auc", "requests", "log_loss", "calibration"].map((one) => said(figures[one], {})),
      badge(arm?.state ?? ""), follows];
  });
  table("arms", ["arm", "#click rate", "#AUC", "#requests", "#log loss", "#calibration", "state", "follows"], rows,
    [missing("releases"), missing("release")].filter(Boolean).join("; ") || "No arm yet.");
  const choice = byId("ask-arm"), wanted = known.filter((one) => one.state !== "retired").map((one) => one.arm);
  if (choice.options.length !== wanted.length + 1 || wanted.some((one, place) => choice.options[place + 1].value !== one)) {
    const before = choice.value;
    choice.replaceChildren(choice.options[0], ...wanted.map((one) => node("option", { value: one }, one)));
    choice.value = wanted.includes(before) ? before : "";
  }
}

function showModels() {
  const rows = state.tables.models ?? [], arms = state.tables.releases?.arms ?? [];
  const heads = new Map(rows.filter((one) => one.service === "trainer").map((one) => [one.what, one.sequence]));
  const behind = (row) => {
    const arm = arms.find((one) => one.arm === (row.service === "recall" ? "online" : row.what));
    if (row.service === "trainer") return "";
    if (!arm || arm.generation !== row.generation) return "–";
    if (arm.pinned !== null) return "pinned";
    const head = heads.get(`${arm.generation}/${arm.policy}`);
    return head === undefined ? "–" : String(Math.max(0, head - row.sequence));
  };
  const why = ["trainer", "ranking", "recall"].map(missing).filter(Boolean).join("; ");
  table("models", ["process", "what", "#version", "#behind", "#age", "replica"],
    rows.map((one) => [one.service, one.what, `${one.generation}.${one.sequence}`, behind(one),
      one.age_s === null ? "" : said(one.age_s, { unit: "s" }), one.replica]), why || "No model yet.");
  if (rows.length && why) byId("models").append(node("p", { class: "gone" }, why));
}

function showGenerations() {
  const rows = [...(state.tables.releases?.generations ?? [])].reverse();
  table("generations", ["#generation", "state", "#from", "#registered"],
    rows.map((one) => [`${one.generation}${one.held ? " (held)" : ""}`, badge(one.state), one.parent || "–", clock(one.registered_ms)]),
    missing("releases") || "No full model yet.");
}

function showSamples() {
  const outcomes = Object.entries(state.tables.outcomes ?? {}).sort((a, b) => b[1] - a[1]);
  const total = outcomes.filter(([name]) => name !== "correction").reduce((sum, [, count]) => sum + count, 0);
  table("samples", ["items shown", "#number", "#share"],
    outcomes.map(([name, count]) => [name.replaceAll("_", " "), said(count, {}), name === "correction" ? "" : said(count / (total || 1), { percent: true })]),
    missing("joiner") || "Nothing was shown yet.");
  const rows = Object.entries(WORKERS).map(([name, words]) => {
    const worker = state.tables.workers?.[name];
    const behind = worker && Object.entries(worker.behind).map(([topic, records]) => `${topic} ${records}`).join(", ");
    const told = worker ? behind || "nothing to read" : missing(`${name} status`) || "–";
    return [words, worker ? worker.state : "–", node("span", { class: "wide" }, told)];
  });
  byId("samples").append(grid(["worker", "state", "records behind"], rows));
}

function showStages() {
  const now = newest();
  const rows = STAGES.filter((stage) => now[`fresh.${stage}`] !== undefined)
    .map((stage) => [stage, said(now[`fresh.${stage}`], { unit: "s" }), said(now[`tail.${stage}`], { unit: "s" }), ends[stage]]);
  const why = ["collector", "joiner", "trainer", "ranking"].map(missing).filter(Boolean).join("; ");
  table("stages", ["stage", "#median", "#p99", "from, to"], rows, why || "No click was followed yet.");
}

const ends = {
  collect: "event received, acknowledged by Kafka",
  join: "click on the log, its sample on the log",
  train: "sample on the log, trained",
  publish: "trained, its delta on the log",
  apply: "delta on the log, served",
};

function showSources() {
  table("sources", ["source", "state", "last heard", "why"],
    [...state.sources.values()].map((one) => [one.name, badge(one.state), one.heard_ms ? clock(one.heard_ms) : "never", node("small", {}, one.error)]), "None.");
}

function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

// -- switches

function showScenarios() {
  const rows = state.tables.scenarios, place = byId("scenarios"), note = byId("scenarios-note");
  if (!rows) {
    place.replaceChildren();
    note.className = "note";
    const source = state.sources.get("scenarios");
    note.textContent = source?.state === "unset" ? "This page has no switches (scenario_target is empty)."
      : "No load answers, so there is nothing to switch: its switches are there while simulate runs (make demo, or python -m loadgen simulate).";
    return;
  }
  if (note.textContent.startsWith("No load")) note.textContent = "";
  const buttons = new Map([...place.children].map((one) => [one.dataset.name, one]));
  if (rows.length !== buttons.size || rows.some((one) => !buttons.has(one.name))) {
    place.replaceChildren(...rows.map((one) => {
      const button = node("button", { type: "button", role: "switch", "data-name": one.name }, node("span", { class: "knob" }),
        node("b", {}, one.name), node("small", {}));
      button.addEventListener("click", () => turn(button));
      return button;
    }));
  }
  for (const button of place.children) {
    const one = rows.find((row) => row.name === button.dataset.name);
    button.setAttribute("aria-checked", String(one.on));
    button.title = one.description;
    button.querySelector("small").textContent = one.description + (one.on ? `; on since ${clock(one.since_ms)}` : "");
  }
}

async function turn(button) {
  const on = button.getAttribute("aria-checked") !== "true", note = byId("scenarios-note");
  button.disabled = true;
  try {
    const answer = await post("/api/scenarios", { name: button.dataset.name, on });
    button.setAttribute("aria-checked", String(answer.scenario.on));
    say(note, `${answer.scenario.name} is ${answer.scenario.on ? "on" : "off"}.`);
  } catch (error) {
    say(note, error.message, true);
  } finally {
    button.disabled = false;
  }
}

// -- a user's list

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const note = byId("list-note"), user = byId("ask-user").value.trim(), button = event.target.querySelector("button");
  button.disabled = true;
  try {
    const answer = await post("/api/recommend", { user, n: Number(byId("ask-n").value), arm: byId("ask-arm").value });
    const degraded = answer.degraded.length ? ` Lacking: ${answer.degraded.join(", ")}.` : "";
    say(note, answer.scored
      ? `${answer.items.length} of ${answer.candidates} candidates, by arm ${answer.arm} with model ${answer.generation}.${answer.sequence} (${answer.policy}), ` +
        `which was ${said(answer.staleness_s, { unit: "s" })} old, on ${answer.replica}; ${said(answer.took_ms, { unit: "ms" })}.${degraded}`
      : `No model scored this list: the order is recall's.${degraded}`);
    const most = Math.max(...answer.items.map((one) => one.score), 1e-9);
    byId("list").replaceChildren(...answer.items.map((item) => row(item, user, most, answer.scored)));
  } catch (error) {
    say(note, error.message, true);
    byId("list").replaceChildren();
  } finally {
    button.disabled = false;
  }
});

function row(item, user, most, scored) {
  const chips = item.sources.map((source) => node("span", { class: `chip${source === "vector" ? " model" : ""}` }, source.replace("_", " ")));
  const meter = node("progress", { max: most, value: item.score, "aria-label": "score" });
  const why = node("button", { type: "button", class: "why", "aria-expanded": "false" }, "Why?");
  const made = node("li", {},
    node("span", { class: "item" }, scored ? said(item.score, { percent: true }) : "not scored", meter, node("code", {}, item.item)),
    node("span", { class: "chips" }, ...chips), why);
  why.addEventListener("click", () => explain(made, why, item, user));
  return made;
}

async function explain(made, button, item, user) {
  const open = made.querySelector(".reasons");
  button.setAttribute("aria-expanded", String(!open));
  if (open) {
    open.remove();
    return;
  }
  const place = node("div", { class: "reasons" }, "…");
  made.append(place);
  try {
    const answer = await post("/api/why", { user, item: item.item });
    const proposed = `Proposed by ${item.sources.map((one) => one.replace("_", " ")).join(", ") || "nobody known"}. `;
    const values = answer.features.length
      ? `What the model sees of this user and this item now (${answer.defaults} more features are at their defaults):`
      : "Nothing is known of this user and this item: all features are at their defaults.";
    place.replaceChildren(node("p", { class: "text" }, proposed + values));
    if (!answer.features.length) return;
    const rows = answer.features.map((one) => [node("span", { class: "wide", title: one.name }, one.description || one.name), said(one.value, {}),
      one.window_s ? duration(one.window_s) : "all time", one.age_s === null ? "–" : duration(one.age_s)]);
    place.append(node("div", { class: "scroll" }, grid(["feature", "#value", "#over", "#newest event"], rows)));
  } catch (error) {
    place.replaceChildren(node("p", { class: "gone" }, error.message));
  }
}

function duration(seconds) {
  const [size, unit] = [[86_400, "d"], [3_600, "h"], [60, "min"]].find(([one]) => seconds >= one) ?? [1, "s"];
  return `${Number((seconds / size).toPrecision(2))} ${unit}`;
}

// -- asking

async function post(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    throw new Error("The page's service does not answer.");
  }
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

function say(place, words, wrong = false) {
  place.textContent = words;
  place.className = wrong ? "note wrong" : "note";
}

// -- begin

for (const chart of charts) byId("charts").append(chart.card);
for (const [ms, words] of [[FEW_MS, "5 min"], [ALL_MS, "15 min"]]) {
  const button = node("button", { type: "button", "aria-pressed": String(ms === state.spanMs) }, words);
  button.addEventListener("click", () => {
    state.spanMs = ms;
    for (const one of byId("spans").children) one.setAttribute("aria-pressed", String(one === button));
    if (state.heardAt) show();
  });
  byId("spans").append(button);
}
setInterval(pulse, 1_000);
connect();
