// Keeps the page up to date with events from its server, and sends orders.

import { Charts } from "/static/charts.js";
import { ask, order } from "/static/orders.js";
import { SlotMap } from "/static/slotmap.js";
import { Table, code, makeButton, makeRow, makeSortable, say } from "/static/tables.js";
import { NOBODY, clock, count, counted, duration, howEnded, perSecond, placeOf, runTime, share, wholeSeconds } from "/static/words.js";

const LABELS = ["", "", "busy", "done", "failed", "rate", "load", "memory", "heard", ""];
const ENGINE = [
  "engine", "node", "rank", "label", "state", "slots", "running", "waiting", "done", "failed", "rate", "heard", "load",
  "memoryUsed", "memoryTotal",
];
const GONE = ["left", "failed"];
const LEAVES = ["draining", "leaving", ...GONE];
const MOST_FAILURES = 200;
const MOST_LOG = 200;

const at = (id) => document.getElementById(id);
const engines = new Map();
let run = null;
let received = 0;
let failures = [];

document.documentElement.classList.add("script");
for (const name of ["pause", "finish"]) at(name).disabled = true; // until the state of the run is known

// ---- the run as a whole ----

const FACTS = {
  done: () => [count(run.done + run.skipped), run.total === null ? "" : `of ${count(run.total)}`],
  failed: () => count(run.failed - run.cancelled + run.skipped_failed),
  cancelled: () => count(run.cancelled),
  running: () => count(run.running),
  slots: () => [count(run.slots), run.slots ? `${share(run.running, run.slots)} busy` : ""],
  waiting: () => count(stillWaiting()),
  rate: () => (run.rate === null ? NOBODY : perSecond(run.rate)),
  left: () => (run.remaining === null ? NOBODY : run.remaining ? wholeSeconds(run.remaining) : "none"),
  seconds: () => (run.mode === "over" ? runTime(run.seconds) : wholeSeconds(run.seconds + (performance.now() - received) / 1000)),
  skipped: () => count(run.skipped),
  retried: () => count(run.retried),
  lost: () => count(run.lost - run.not_run),
  notRun: () => count(run.not_run),
};
// Of the whole list if its length is known, else of the tasks that were read.
function stillWaiting() {
  if (run.total === null || run.mode !== "running") return run.waiting;
  return Math.max(run.waiting, run.total - run.done - run.skipped - run.lost - run.running);
}

const IS_HIDDEN = {
  cancelled: () => !run.cancelled, skipped: () => !run.skipped, retried: () => !run.retried,
  lost: () => run.lost === run.not_run, notRun: () => !run.not_run,
};

function showRun(news) {
  const mode = run.paused && run.mode === "running" ? "paused" : run.mode;
  say(at("name"), run.name);
  say(at("jobid"), run.jobid);
  say(at("mode"), mode);
  at("mode").dataset.mode = mode;
  const barrier = run.barrier === null ? "" : `waiting at the barrier in line ${run.barrier}`;
  notice(news.silence || run.notice || barrier);
  say(at("pause"), run.paused ? "Resume" : "Pause");
  for (const name of ["pause", "finish"]) at(name).disabled = false;
  showFacts();
  const finished = run.done + run.skipped;
  const part = run.total ? Math.min(100, (100 * finished) / run.total) : 0;
  const bar = at("bar");
  if (run.total) bar.setAttribute("aria-valuenow", part.toFixed(1));
  bar.querySelector(".done").setAttribute("width", part);
  bar.querySelector(".failed").setAttribute("width", run.total ? (100 * run.failed) / run.total : 0);
  document.title = run.total ? `${Math.floor(part)}% ${run.name}` : `${count(finished)} ${run.name}`;
}

function notice(words) {
  at("notice").hidden = !words;
  say(at("notice"), words);
}

let made = false;

function makeFacts() {
  if (made) return;
  made = true;
  at("facts").replaceChildren();
  const labels = {
    left: "time left", seconds: "elapsed", skipped: "done before", retried: "run again", lost: "given up",
    notRun: "not run",
  };
  for (const name of Object.keys(FACTS)) {
    const fact = document.createElement("div");
    fact.dataset.fact = name;
    const [value, more] = [document.createElement("dd"), document.createElement("small")];
    value.append(document.createElement("b"), more);
    fact.append(document.createElement("dt"), value);
    fact.firstElementChild.textContent = labels[name] ?? name;
    at("facts").append(fact);
  }
}

function showFacts() {
  makeFacts();
  for (const fact of at("facts").children) {
    const name = fact.dataset.fact;
    const [value, more] = [FACTS[name]()].flat();
    say(fact.querySelector("b"), value);
    say(fact.querySelector("small"), more ?? "");
    fact.hidden = name in IS_HIDDEN && IS_HIDDEN[name]();
    fact.classList.toggle("alarm", name === "failed" && run.failed > run.cancelled);
  }
}

at("pause").addEventListener("click", () => {
  if (run.paused) order({ verb: "resume" });
  else ask("Pause the run?", "No more tasks start. Running tasks continue.", "Pause", { verb: "pause" });
});
at("finish").addEventListener("click", () =>
  ask("Finish the run now?", `${run.running === 1 ? "1 running task is" : `${count(run.running)} running tasks are`} ended. The run can be resumed later.`, "Finish", { verb: "finish" }));

// ---- nodes ----

const sorted = makeSortable(at("engines"), () => showEngines());
const VALUES = {
  node: (e) => e.node, state: (e) => e.state, busy: (e) => e.running, done: (e) => e.done, failed: (e) => e.failed,
  rate: (e) => e.rate, load: (e) => e.load, memory: (e) => (e.memoryTotal ? e.memoryUsed / e.memoryTotal : null),
  heard: (e) => e.heard,
};
const nameOf = (engine) => placeOf(engine.node, engine.label);

const engineTable = new Table(at("engines"), {
  key: (e) => e.engine,
  most: 200,
  make(engine) {
    const row = makeRow(["th", "", "n", "n", "n", "n", "n", "n", "n", "act"]);
    LABELS.forEach((label, index) => (row.cells[index].dataset.label = label));
    row.lastElementChild.append(
      makeButton("Drain", `Drain ${nameOf(engine)}`, () => askToLeave("drain", engines.get(engine.engine))),
      makeButton("Stop", `Stop ${nameOf(engine)}`, () => askToLeave("stop", engines.get(engine.engine)), "danger"),
    );
    return row;
  },
  fill(row, e) {
    const words = [
      nameOf(e), e.state, `${count(e.running)} of ${count(e.slots)}`, count(e.done),
      count(e.failed), e.rate === null ? NOBODY : perSecond(e.rate, run.rate), e.load === null ? NOBODY : e.load.toFixed(1),
      e.memoryTotal ? share(e.memoryUsed, e.memoryTotal) : NOBODY, e.heard === null ? "" : `${count(e.heard)} s ago`,
    ];
    words.forEach((word, index) => say(row.cells[index], word));
    row.dataset.state = e.state;
    row.cells[4].classList.toggle("bad", e.failed > 0);
    const [drain, stop] = row.lastElementChild.children;
    drain.disabled = LEAVES.includes(e.state) || run.mode === "over";
    stop.disabled = GONE.includes(e.state) || run.mode === "over";
  },
  note: (all, shown) => say(at("engines-note"), all > shown ? `and ${count(all - shown)} more; a filter finds them` : ""),
});

function askToLeave(verb, engine) {
  const tasks = engine.running === 1 ? "1 task runs" : `${count(engine.running)} tasks run`;
  const others = [...engines.values()].some((e) => e !== engine && !LEAVES.includes(e.state) && !GONE.includes(e.state));
  const alone = others ? "" : " This is the last node: without it, the other tasks wait for a new node, or the run ends.";
  const [question, explained] = verb === "drain"
    ? [`Drain ${nameOf(engine)}?`, `It gets no more tasks. ${tasks} there, to the end; then the node leaves.${alone}`]
    : [`Stop ${nameOf(engine)}?`, `${tasks} there and will be ended, to be run again elsewhere; then the node leaves.${alone}`];
  ask(question, explained, verb === "drain" ? "Drain" : "Stop", { verb, nodes: [engine.engine] });
}

function showEngines() {
  const word = at("filter").value.trim().toLowerCase();
  const all = [...engines.values()];
  const wanted = word ? all.filter((e) => `${e.node} ${e.label} ${e.state}`.toLowerCase().includes(word)) : all;
  const here = wanted.filter((e) => !GONE.includes(e.state));
  engineTable.show(sorted(here.length === wanted.length ? wanted : [...here, ...wanted.filter((e) => GONE.includes(e.state))], VALUES));
}
at("filter").addEventListener("input", showEngines);

const map = new SlotMap(at("slots"), at("tip"), (engine) => {
  at("filter").value = engine.node;
  showEngines();
  at("h-engines").scrollIntoView({ block: "start" });
});
const charts = new Charts(at("throughput"), at("busy"));

// ---- tasks ----

const runningTable = new Table(at("running"), {
  key: (t) => `${t[2]} ${t[0]}`,
  most: 100,
  make(task) {
    const row = makeRow(["n", "n", "", "n", "wide", "act"]);
    code(row.cells[4], task[5]);
    [task[0], task[1], placeOf(task[3], task[6])].forEach((word, index) => say(row.cells[index], String(word)));
    row.lastElementChild.append(makeButton("Cancel", `Cancel task ${task[0]}`, () =>
      ask(`Cancel task ${task[0]}?`, "It is ended and recorded as cancelled.", "Cancel it", { verb: "cancel", tasks: [[task[0], task[0]]] }), "danger"));
    return row;
  },
  fill: (row, task) => say(row.cells[3], task[4] === null ? "new" : wholeSeconds(task[4])),
  note: (all) => say(at("running-note"), all ? "" : "no task is running"),
});

let kindsCount = 0;
const kindTable = new Table(at("kinds"), {
  key: (k) => k[2],
  most: 50,
  make() {
    const row = makeRow(["n", "bad", "n", "", "wide"]);
    row.cells[4].append(document.createElement("samp"));
    return row;
  },
  fill: (row, k) => k.forEach((word, index) => say(index === 4 ? row.cells[4].firstChild : row.cells[index], word)),
  note: (all) => say(at("kinds-note"), !all ? "none so far" : kindsCount > all ? `and ${counted(kindsCount - all, "more kind")}` : ""),
});

const failureTable = new Table(at("failures"), {
  key: (f) => f[0],
  most: MOST_FAILURES,
  make: (f) => taskRow([f[1], f[2], placeOf(f[3], f[9]), howEnded(f[4], f[10]), duration(f[5])], f[8], f[11] || f[7]),
  fill() {},
  note: (all, shown) => say(at("failures-note"), !all ? "none so far" : run.failed > shown ? `the newest of ${count(run.failed)}; the search finds the others` : ""),
});

function taskRow(words, command, snippet) {
  const row = makeRow(["n", "n", "", "bad", "n", "wide"]);
  words.forEach((word, index) => say(row.cells[index], String(word)));
  code(row.cells[5], command, snippet);
  return row;
}

function showLog(lines) {
  for (const [, time, text] of lines) {
    const line = document.createElement("li");
    const when = document.createElement("time");
    when.textContent = clock(time);
    line.append(when, ` ${text}`);
    at("log").prepend(line);
  }
  say(at("log-note"), at("log").children.length ? "" : "none so far");
  while (at("log").children.length > MOST_LOG) at("log").lastElementChild.remove();
}

// ---- search ----

let searched = null;
const found = at("found");

async function search(before) {
  const [query, failed] = [at("query").value, at("only-failed").checked];
  const mine = (searched = {});
  say(at("search-said"), "searching…");
  const words = new URLSearchParams({ q: query, failed: failed ? "1" : "0" });
  if (before) words.set("before", before);
  let result;
  try {
    result = await (await fetch(`/search?${words}`)).json();
  } catch {
    result = { found: [], before: 0, problem: "The run could not be reached." };
  }
  if (searched !== mine) return;
  const body = found.tBodies[0];
  if (!before) body.replaceChildren();
  for (const [id, line, node, returnCode, seconds, , snippet, command, mark, reason, lastLine] of result.found) {
    const ended = howEnded(returnCode, reason) + (mark ? `, ${mark}` : "");
    const row = taskRow([id, line, node, ended, duration(seconds)], command, lastLine || snippet);
    row.cells[3].classList.toggle("bad", returnCode !== 0);
    body.append(row);
  }
  found.hidden = !body.children.length;
  at("more").hidden = !result.before;
  at("more").onclick = () => search(result.before);
  const many = `${count(body.children.length)} found, newest first`;
  say(at("search-said"), result.problem || (result.before ? `${many}; there may be more` : body.children.length ? many : "nothing found"));
}
at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search(0);
});

// ---- news ----

function take(news) {
  received = performance.now();
  if (!news.run) {
    notice(news.silence);
    return;
  }
  run = news.run;
  if (news.all) {
    engines.clear();
    map.reset();
    charts.reset();
    failures = [];
    at("log").replaceChildren();
  }
  const changed = news.engines.map((row) => Object.fromEntries(row.map((value, index) => [ENGINE[index], value])));
  for (const engine of changed) engines.set(engine.engine, engine);
  showRun(news);
  if (changed.length || news.all) {
    map.take(changed);
    showEngines();
  }
  charts.take(news.course);
  runningTable.show(news.running);
  kindsCount = news.kinds_count;
  kindTable.show(news.kinds);
  failures = [...news.failures.reverse(), ...failures].slice(0, MOST_FAILURES);
  failureTable.show(failures);
  showLog(news.log);
  if (news.over) end();
}

const events = new EventSource("/events");
events.onmessage = (event) => take(JSON.parse(event.data));
events.onerror = () => {
  document.body.classList.add("away");
  notice("The server of this page does not answer. Trying again; if the run has ended, this is its last state.");
};
events.onopen = () => document.body.classList.remove("away");

function end() {
  events.close();
  clearInterval(ticking);
  for (const button of document.querySelectorAll(".orders.scripted button, .act button, #search button")) button.disabled = true;
  showEngines();
}

const ticking = setInterval(() => run && !document.hidden && showFacts(), 1000);
