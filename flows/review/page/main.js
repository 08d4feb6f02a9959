// The page: what is shown is in its address, what is decided is sent at once, and the next scan is there meanwhile.

import * as api from "/page/api.js";
import { List, stateLabel, stateName } from "/page/list.js";
import { VIEWS, Viewer } from "/page/viewer.js";

const $ = (id) => document.getElementById(id);
const STATES = { approve: "approved", reject: "rejected", "needs work": "needs work" };
const state = { show: "to review", q: "", folder: "", sort: "name", scan: "", view: "curtain" };
let about = { tile: 512, readOnly: false };
let current = null; // the scan that is shown
let sending = Promise.resolve();
const done = []; // what was decided here, for undo
const known = new Map(); // details that were asked for ahead

function say(text, isTrouble = false) {
  $("hint").textContent = text;
  $("hint").classList.toggle("trouble", isTrouble);
}

const trouble = (error) => { if (error.name !== "AbortError") say(error.message, true); };

// The address

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(state)) if (given.has(name)) state[name] = given.get(name);
  if (!VIEWS.includes(state.view)) state.view = "curtain";
}

function writeAddress() {
  const told = Object.entries(state).filter(([, value]) => value);
  history.replaceState(null, "", `#${new URLSearchParams(told)}`);
}

// The list

const list = new List($("scans"), (name) => open(name));
const viewer = new Viewer($("stage"), ({ zoom, trouble: problem }) => {
  if (zoom) $("zoom").textContent = `${zoom >= 0.1 ? Math.round(zoom * 100) : (zoom * 100).toFixed(1)} %`;
  if (problem) say(problem, true);
});

async function load(keepsScan = true) {
  const { show, q, folder, sort } = state;
  let told;
  try { told = await list.load({ show, q, folder, sort }); } catch (error) { trouble(error); return; }
  drawFilters(told.counts);
  $("count").textContent = `${told.count} ${told.count === 1 ? "scan" : "scans"}`;
  const wanted = keepsScan && state.scan && (list.index(state.scan) >= 0 || !q) ? state.scan : list.all[0]?.scan;
  if (wanted) await open(wanted); else empty(told.count === 0 ? "Nothing here. Choose another filter above." : "");
}

function drawFilters(counts) {
  const buttons = about.filters.filter((name) => counts[name] || ["all", "to review", "approved"].includes(name)).map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    if (name === state.show) button.setAttribute("aria-current", "true");
    const count = document.createElement("span");
    count.className = "count";
    count.textContent = counts[name];
    button.append(name[0].toUpperCase() + name.slice(1), count);
    button.addEventListener("click", () => { state.show = name; load(false); });
    return button;
  });
  $("filters").replaceChildren(...buttons);
}

let counting = 0;
function count() {
  clearTimeout(counting);
  counting = setTimeout(() => {
    api.scans({ folder: state.folder, limit: 0 }).then((told) => drawFilters(told.counts)).catch(trouble);
  }, 300);
}

// One scan

function empty(text) {
  current = null;
  state.scan = "";
  viewer.close();
  $("nothing").hidden = false;
  $("nothing").textContent = text;
  for (const id of ["name", "state", "word", "left-name", "right-name"]) $(id).textContent = "";
  for (const id of ["said", "details"]) $(id).replaceChildren();
  writeAddress();
}

function ahead(name) {
  if (!known.has(name)) {
    known.set(name, api.scan(name));
    known.get(name).catch(() => known.delete(name));
    if (known.size > 12) known.delete(known.keys().next().value);
  }
  return known.get(name);
}

let opening = 0;
async function open(name, version = "") {
  const number = ++opening;
  state.scan = name;
  current = null; // nobody decides on what is not shown yet
  delete document.body.dataset.shown;
  list.mark(name);
  writeAddress();
  let scan;
  try { scan = await (version ? api.scan(name, version) : ahead(name)); } catch (error) {
    if (number === opening) { empty(error.message); state.scan = name; }
    return;
  }
  if (number !== opening) return;
  drawScan(scan);
  drawTry(1, 0);
  if (!scan.levels.length) { viewer.close(); $("nothing").hidden = false; $("nothing").textContent = scan.reason; return; }
  $("nothing").hidden = true;
  await viewer.open(scan, about.tile);
  if (number !== opening) return;
  current = scan;
  document.body.dataset.shown = name;
  if ($("doubt").getAttribute("aria-pressed") === "true") viewer.doubt(true);
  const next = list.beside(name, 1);
  if (next) ahead(next.scan).catch(() => {});
}

function drawScan(scan) {
  $("name").textContent = scan.scan;
  document.title = `${scan.scan} – Review`;
  $("state").replaceChildren(stateLabel(scan.state));
  const reason = scan.reason.startsWith(`${scan.scan}: `) ? scan.reason.slice(scan.scan.length + 2) : scan.reason;
  if (reason && reason !== "nobody has reviewed it") $("state").append(` ${reason}`);
  $("word").textContent = scan.word ? `The model calls its colours ${scan.word}.` : "";
  $("said").replaceChildren(...scan.decisions.map((each) => {
    const line = document.createElement("li");
    const why = [each.reason, each.note].filter(Boolean).join("; ");
    const when = each.when ? new Date(each.when).toLocaleString() : "";
    line.textContent = `${each.decision}${each.person ? ` · ${each.person}` : ""} · ${when}${why ? ` · ${why}` : ""}${each.current ? "" : " (other colours)"}`;
    line.className = each.current ? "" : "old";
    return line;
  }));
  if (!scan.decisions.length) {
    const line = document.createElement("li");
    line.textContent = "Nothing yet.";
    line.className = "old";
    $("said").append(line);
  }
  $("details").replaceChildren(...(scan.details || []).flatMap(([name, value]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = name; dd.textContent = value;
    return [dt, dd];
  }));
  $("versions-label").hidden = !scan.kept.length;
  $("versions").replaceChildren(...["", ...scan.kept].map((name) => new Option(name || "with the scan", name)));
  drawNames();
}

function drawNames() {
  const other = $("versions").value;
  const left = other ? `Version ${other}` : "Scan";
  $("left-name").textContent = state.view === "colours" ? "" : left;
  $("right-name").textContent = state.view === "scan" ? "" : "Colours";
  if (state.view === "colours") $("left-name").textContent = "";
  $("left-name").hidden = state.view === "colours";
  $("right-name").hidden = state.view === "scan";
}

function go(steps) {
  const next = state.scan ? list.beside(state.scan, steps) : list.all[0];
  if (next) open(next.scan); else if (steps > 0) say("That was the last one in this list.");
}

// Decisions

function person() {
  const name = $("person").value.trim();
  if (!name) {
    say("Type your name first: a decision is somebody's.", true);
    $("person").focus();
  }
  return name;
}

function decide(decision) {
  if (about.readOnly) { say("This desk is for looking only.", true); return; }
  if (!current?.version) { say("Not shown yet."); return; }
  const who = person();
  if (!who) return;
  const scan = current;
  const values = {
    scan: scan.scan, version: scan.version, decision, person: who, reason: $("reason").value, note: $("note").value,
  };
  const before = { ...list.all.find((each) => each.scan === scan.scan) };
  list.changed({ ...scan, state: STATES[decision] });
  done.push(scan.scan);
  $("reason").value = $("note").value = "";
  known.delete(scan.scan);
  send(values, before);
  say(`${scan.scan}: ${STATES[decision]}`);
  go(1);
}

// One after the other, in the order of the keys; what fails is told, and stands in the list as it was.
function send(values, before) {
  sending = sending.then(() => api.decide(values)).then((told) => {
    list.changed(told);
    known.delete(values.scan);
    count();
    if (current?.scan === values.scan) refresh(values.scan);
  }).catch((error) => {
    if (before.scan) list.changed(before);
    say(`${values.scan}: ${error.message}`, true);
  });
}

async function refresh(name) {
  try {
    const scan = await ahead(name);
    if (current?.scan !== name) return;
    current = scan;
    drawScan(scan);
  } catch (error) { trouble(error); }
}

function undo() {
  const name = done.pop();
  const who = name && person();
  if (!name || !who) { if (!name) say("Nothing to undo here."); return; }
  const scan = list.all.find((each) => each.scan === name);
  if (scan) send({ scan: name, version: scan.version, decision: "undo", person: who, reason: "", note: "" }, { ...scan });
  say(`${name}: undone`);
  open(name);
}

// The view

function view(name) {
  state.view = name;
  for (const button of $("views").children) button.setAttribute("aria-pressed", String(button.textContent === label(name)));
  viewer.show(name);
  drawNames();
  writeAddress();
}

const label = (name) => name[0].toUpperCase() + name.slice(1);

function doubt() {
  const on = $("doubt").getAttribute("aria-pressed") !== "true";
  $("doubt").setAttribute("aria-pressed", String(on));
  viewer.doubt(on);
}

// Other colours, tried

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function drawTry(saturation, warmth) {
  for (const [id, value] of [["saturation", saturation], ["warmth", warmth]]) {
    $(id).value = value;
    $(`${id}-value`).textContent = value;
  }
  const options = [...(saturation !== 1 ? [`--saturation ${saturation}`] : []), ...(warmth ? [`--warmth ${warmth}`] : [])];
  $("tried").hidden = !options.length;
  $("command").textContent = `colorize-archive reprocess ${quoted(about.folder || "")} ${quoted(state.scan)} ${options.join(" ")}`;
}

let trying = 0;
function tried(saturation, warmth) {
  drawTry(saturation, warmth);
  clearTimeout(trying);
  const grade = { ...(saturation !== 1 && { saturation }), ...(warmth && { warmth }) };
  trying = setTimeout(() => viewer.grade(grade, about.tile), 120);
}

for (const id of ["saturation", "warmth"]) {
  $(id).addEventListener("input", () => tried(Number($("saturation").value), Number($("warmth").value)));
}
$("as-it-was").addEventListener("click", () => tried(1, 0));

const KEYS = {
  a: () => decide("approve"), r: () => decide("reject"), w: () => decide("needs work"),
  s: () => go(1), ArrowDown: () => go(1), j: () => go(1), ArrowUp: () => go(-1), k: () => go(-1), u: undo,
  n: () => $("note").focus(), "/": () => $("text").focus(), d: doubt, "?": () => $("help").showModal(),
  v: () => view(VIEWS[(VIEWS.indexOf(state.view) + 1) % VIEWS.length]),
  0: () => viewer.fit(), 1: () => viewer.full(), "+": () => viewer.nearer(1.5), "-": () => viewer.nearer(1 / 1.5),
  ArrowLeft: () => viewer.move(-1), ArrowRight: () => viewer.move(1), " ": () => viewer.peek(true),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.matches("input, textarea, select")) { event.target.blur(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.target.matches("input, textarea, select") || (event.key === " " && event.target.matches("button, summary"))) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  if (event.repeat && !["ArrowLeft", "ArrowRight", "ArrowDown", "ArrowUp", "+", "-"].includes(event.key)) return;
  act();
});
document.addEventListener("keyup", (event) => { if (event.key === " ") viewer.peek(false); });

for (const button of document.querySelectorAll("[data-decision]")) {
  button.addEventListener("click", () => decide(button.dataset.decision));
}
$("skip").addEventListener("click", () => go(1));
$("undo").addEventListener("click", undo);
$("fit").addEventListener("click", () => viewer.fit());
$("full").addEventListener("click", () => viewer.full());
$("doubt").addEventListener("click", doubt);
$("help-button").addEventListener("click", () => $("help").showModal());
$("search").addEventListener("submit", (event) => event.preventDefault());
let typing = 0;
$("text").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { state.q = $("text").value; load(false); }, 180);
});
$("folders").addEventListener("change", () => { state.folder = $("folders").value; load(false); });
$("sort").addEventListener("change", () => { state.sort = $("sort").value; load(false); });
$("versions").addEventListener("change", async () => {
  const other = $("versions").value;
  try { await viewer.open(current, about.tile, other ? await api.scan(current.scan, other) : null); } catch (error) { trouble(error); }
  drawNames();
});
$("person").addEventListener("change", () => localStorage.setItem("person", $("person").value));
addEventListener("hashchange", () => { readAddress(); start(); });

async function start() {
  $("text").value = state.q;
  $("sort").value = state.sort;
  $("folders").value = state.folder;
  view(state.view);
  await load();
}

readAddress();
$("person").value = localStorage.getItem("person") || "";
$("views").append(...VIEWS.map((name) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label(name);
  button.addEventListener("click", () => view(name));
  return button;
}));
try {
  about = await api.folder();
  $("folder").textContent = about.folder;
  $("folders").append(...about.folders.map((name) => new Option(name, name)));
  if (about.readOnly) for (const button of $("buttons").querySelectorAll("[data-decision], #undo")) button.disabled = true;
  await start();
  if (about.rules.length && !about.readOnly) say(`${about.rules.length} rules of policy.yaml`);
} catch (error) { trouble(error); }
window.deskIsReady = true;
