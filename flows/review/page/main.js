// The page: what is shown is in its address, what is decided is sent at once, and the next scan is there meanwhile.

import * as api from "/page/api.js";
import { Corrector } from "/page/correct.js";
import { List, stateLabel } from "/page/list.js";
import { VIEWS, Viewer } from "/page/viewer.js";

const $ = (id) => document.getElementById(id);
const STATES = { approve: "approved", reject: "rejected", "needs work": "needs work" };
const state = { show: "to review", q: "", folder: "", series: "", sort: "name", scan: "", view: "curtain" };
let about = { tile: 512, readOnly: false };
let current = null; // the scan that is shown
let sending = Promise.resolve();
const past = []; // what was done here, each with how to undo and to redo it
let moving = Promise.resolve(); // what is being undone or done again
const future = [];
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
const viewer = new Viewer($("stage"), ({ zoom, at, box, drawn, trouble: problem }) => {
  if (at) corrector.place(at);
  if (box) corrector.drawn(box);
  if (drawn) document.body.dataset.drawn = JSON.stringify(drawn);
  if (zoom) $("zoom").textContent = `${zoom >= 0.1 ? Math.round(zoom * 100) : (zoom * 100).toFixed(1)} %`;
  if (problem) say(problem, true);
});

const corrector = new Corrector(viewer, {
  person, say, did, ordered, open: (name) => open(name), tile: () => about.tile, names: () => list.all.map((each) => each.scan),
  readOnly: () => about.readOnly,
});

async function load(keepsScan = true) {
  const { show, q, folder, series, sort } = state;
  let told;
  try { told = await list.load({ show, q, folder, series, sort }); } catch (error) { trouble(error); return; }
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
    api.scans({ folder: state.folder, series: state.series, limit: 0 }).then((told) => drawFilters(told.counts)).catch(trouble);
  }, 300);
}

// One scan

function empty(text) {
  current = null;
  state.scan = "";
  viewer.close();
  corrector.scan(null);
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
  drawTry(scan.made || AS_MADE);
  if (!scan.levels.length) { viewer.close(); $("nothing").hidden = false; $("nothing").textContent = scan.reason; return; }
  $("nothing").hidden = true;
  await viewer.open(scan, about.tile);
  if (number !== opening) return;
  current = scan;
  document.body.dataset.shown = name;
  delete document.body.dataset.drawn;
  viewer.overlay.seams = null;
  await corrector.scan(scan);
  if (number !== opening) return;
  if ($("hints-button").getAttribute("aria-pressed") === "true") corrector.marks(true);
  if ($("seams").getAttribute("aria-pressed") === "true") { $("seams").setAttribute("aria-pressed", "false"); seams(); }
  histogram();
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
  $("restore").hidden = true;
  drawNames();
}

function drawNames() {
  const other = $("versions").value;
  $("restore").hidden = !other || about.readOnly;
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
  const undone = { ...values, decision: "undo", reason: "", note: "" };
  did({
    name: `${scan.scan}: ${STATES[decision]}`,
    undo: () => { send(undone, {}); return open(scan.scan); },
    redo: () => { known.delete(scan.scan); send(values, {}); return open(scan.scan); },
  });
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

// Undo and redo, of decisions, hints and versions alike

// Behind what is being undone or done again: it was done after that, and is undone before it.
function did(entry) {
  moving = moving.then(() => {
    past.push(entry);
    future.length = 0;
  }).finally(drawUndo);
}

function drawUndo() {
  $("undo").disabled = about.readOnly || !past.length;
  $("redo").disabled = about.readOnly || !future.length;
  $("undo").title = past.at(-1)?.name || "";
  $("redo").title = future.at(-1)?.name || "";
}

// One after the other: what is undone can be done again as soon as it is undone.
function move(from, to, how, word) {
  moving = moving.then(async () => {
    const entry = from.pop();
    if (!entry) { say(`Nothing to ${how} here.`); return; }
    await entry[how]();
    to.push(entry);
    say(`${entry.name}: ${word}`);
  }).catch(trouble).finally(drawUndo);
}

const undo = () => move(past, future, "undo", "undone");
const redo = () => move(future, past, "redo", "done again");

// What is made in the background

let looking = 0;
const seenOrders = new Map();
async function ordered() {
  clearTimeout(looking);
  let told;
  try { told = (await api.orders()).orders; } catch (error) { trouble(error); return; }
  const busy = told.filter((each) => each.state === "waiting" || each.state === "running");
  $("orders").hidden = !busy.length;
  $("orders").textContent = busy.length ? `Colouring ${busy[0].scan}${busy[0].what ? ` (${busy[0].what})` : ""}${busy.length > 1 ? ` and ${busy.length - 1} more` : ""} …` : "";
  for (const each of told) {
    if (seenOrders.get(each.number) !== each.state && seenOrders.has(each.number)) await ended(each);
    seenOrders.set(each.number, each.state);
  }
  if (busy.length) looking = setTimeout(ordered, 1000);
}

async function ended(order) {
  if (order.state === "failed") say(`${order.scan}: ${order.said || "it could not be coloured"}`, true);
  if (order.state !== "done") return;
  known.delete(order.scan);
  say(`${order.scan}: coloured with ${order.what}. New colours need a new decision.`);
  await again(order.scan);
}

// A scan whose colours are others by now.
async function again(name) {
  count();
  known.delete(name);
  const fresh = await ahead(name);
  list.changed(fresh);
  if (state.scan === name) await open(name);
}

async function restore(version) {
  const scan = current;
  if (!scan || !version) return;
  const go = async (wanted) => {
    const { version: seen } = await api.scan(scan.scan);
    const told = await api.restore({ scan: scan.scan, version: seen, restore: wanted });
    await again(scan.scan);
    return told.before;
  };
  try {
    const before = await go(version);
    did({ name: `${scan.scan}: version ${version}`, undo: () => go(before), redo: () => go(version) });
    say(`${scan.scan}: version ${version} is the current one again.`);
  } catch (error) { trouble(error); }
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

function pressed(id) {
  const on = $(id).getAttribute("aria-pressed") !== "true";
  $(id).setAttribute("aria-pressed", String(on));
  return on;
}

// Where blocks and tiles meet, as lines

async function seams() {
  const on = pressed("seams");
  viewer.overlay.seams = null;
  const scan = current;
  try {
    if (on && scan) {
      const found = await api.seams(scan.scan);
      if (current === scan) viewer.overlay.seams = found;
    }
  } catch (error) { trouble(error); }
  viewer.overlay.draw();
}

// How far the lightness of the result is the scan's

async function histogram() {
  const scan = current;
  $("lightness").hidden = true;
  if (!scan?.version || !$("more").open) return;
  let told;
  try { told = await api.lightness(scan.scan); } catch (error) { $("lightness-words").textContent = error.message; $("lightness").hidden = false; $("bars").replaceChildren(); return; }
  if (current !== scan) return;
  const most = Math.max(1, ...told.counts);
  $("bars").setAttribute("viewBox", `0 0 ${told.counts.length} 20`);
  $("bars").replaceChildren(...told.counts.map((count, index) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    // By logarithm: a few pixels that are elsewhere are to be seen beside the million that are not.
    const height = count ? 1 + 19 * (Math.log(count + 1) / Math.log(most + 1)) : 0;
    for (const [name, value] of Object.entries({ x: index + 0.1, y: 20 - height, width: 0.8, height })) bar.setAttribute(name, value);
    return bar;
  }));
  $("lightness-words").textContent = `Lightness of the result minus the scan's: at most ${told.worst} L* in ${told.pixels.toLocaleString()} pixels. `
    + `From −${told.top} to ${told.top}, by logarithm.`;
  $("lightness").hidden = false;
}

// Other colours, tried

const AS_MADE = { vivid: 0, saturation: 1, warmth: 0 };
const SLIDERS = Object.keys(AS_MADE);

function drawTry(values) {
  for (const name of SLIDERS) {
    $(name).value = values[name];
    $(`${name}-value`).textContent = Number($(name).value);
  }
  const made = current?.made || AS_MADE;
  const isOther = SLIDERS.some((name) => Number($(name).value) !== made[name]);
  $("tried").hidden = $("keep").disabled = !isOther;
  $("nearly").hidden = Number($("vivid").value) === made.vivid;
}

let trying = 0;
function tried(values) {
  drawTry(values);
  clearTimeout(trying);
  const made = current?.made || AS_MADE;
  const { vivid, saturation, warmth } = Object.fromEntries(SLIDERS.map((name) => [name, Number($(name).value)]));
  const isOther = vivid !== made.vivid || saturation !== made.saturation || warmth !== made.warmth;
  const trial = isOther ? { ...(vivid !== made.vivid && { vivid }), saturation, warmth } : {};
  trying = setTimeout(() => viewer.try(trial, about.tile), 100);
}

for (const name of SLIDERS) {
  $(name).addEventListener("input", () => tried(Object.fromEntries(SLIDERS.map((each) => [each, Number($(each).value)]))));
}
$("as-it-was").addEventListener("click", () => tried(current?.made || AS_MADE));
$("keep").addEventListener("click", async () => {
  const values = Object.fromEntries(SLIDERS.map((name) => [name, Number($(name).value)]));
  try {
    await api.order({ scan: current.scan, version: current.version, what: "grade", ...values });
    ordered();
  } catch (error) { trouble(error); }
});

const KEYS = {
  a: () => decide("approve"), r: () => decide("reject"), w: () => decide("needs work"),
  s: () => go(1), ArrowDown: () => go(1), j: () => go(1), ArrowUp: () => go(-1), k: () => go(-1), u: undo, y: redo,
  g: seams, c: () => corrector.toggle(), h: () => corrector.marks(pressed("hints-button")), Enter: () => corrector.add(),
  n: () => $("note").focus(), "/": () => $("text").focus(), d: doubt, "?": () => $("help").showModal(),
  v: () => view(VIEWS[(VIEWS.indexOf(state.view) + 1) % VIEWS.length]),
  0: () => viewer.fit(), 1: () => viewer.full(), "+": () => viewer.nearer(1.5), "-": () => viewer.nearer(1 / 1.5),
  ArrowLeft: () => viewer.move(-1), ArrowRight: () => viewer.move(1), " ": () => viewer.peek(true),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.matches("input, textarea, select")) { event.target.blur(); return; }
  if (document.querySelector("dialog[open]")) return;
  if (event.ctrlKey || event.metaKey || event.altKey) {
    if (event.key.toLowerCase() !== "z" || event.altKey || event.target.matches("input, textarea, select")) return;
    event.preventDefault();
    (event.shiftKey ? redo : undo)();
    return;
  }
  if (event.target.matches("input, textarea, select") || ([" ", "Enter"].includes(event.key) && event.target.matches("button, summary"))) return;
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
$("seams").addEventListener("click", seams);
$("more").addEventListener("toggle", histogram);
$("redo").addEventListener("click", redo);
$("restore").addEventListener("click", () => restore($("versions").value));
$("correct-button").addEventListener("click", () => corrector.toggle());
$("hints-button").addEventListener("click", () => corrector.marks(pressed("hints-button")));
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
$("series").addEventListener("change", () => { state.series = $("series").value; load(false); });
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
  $("series").value = state.series;
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
  for (const id of about.readOnly ? ["keep", "pick", "from-other", "colour", "box"] : []) $(id).hidden = true;
  drawUndo();
  await start();
  api.series().then(({ series: names }) => {
    $("series").hidden = !names.length;
    $("series").append(...names.map((name) => new Option(name, name)));
    $("series").value = state.series;
  }).catch(trouble);
  ordered();
  if (about.rules.length && !about.readOnly) say(`${about.rules.length} rules of policy.yaml`);
} catch (error) { trouble(error); }
window.deskIsReady = true;
