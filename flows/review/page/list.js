// The list of scans: asked for in parts, so that ten thousand open as fast as ten.

import { scans, smallAddress } from "/page/api.js";

const PART = 200;

export function stateName(state) {
  return state === "unreviewed" || state === "unknown" ? (state === "unknown" ? "cannot be judged" : "to review") : state;
}

export function stateLabel(state) {
  const label = document.createElement("span");
  label.className = `state ${state.replace(" ", "-")}`;
  label.textContent = stateName(state);
  return label;
}

export class List {
  constructor(element, chosen) {
    this.element = element;
    this.chosen = chosen; // called with a scan that was clicked
    this.rows = new Map();
    this.all = [];
    this.end = new IntersectionObserver((seen) => { if (seen.some((each) => each.isIntersecting)) this.more(); },
      { root: element, rootMargin: "600px" });
  }

  async load(query) {
    this.asking?.abort();
    this.asking = new AbortController();
    const told = await scans({ ...query, offset: 0, limit: PART }, this.asking.signal);
    this.query = query;
    this.all = [];
    this.rows.clear();
    this.element.replaceChildren();
    this.#add(told);
    return told;
  }

  async more() {
    if (this.waiting || this.all.length >= this.count + this.left) return;
    this.waiting = true;
    try {
      // What was decided since may be in the filter no more, and those behind it have moved up.
      const offset = this.all.length - this.left;
      this.#add(await scans({ ...this.query, offset, limit: PART }, this.asking.signal));
    } finally { this.waiting = false; }
  }

  #add(told) {
    this.count = told.count;
    this.left = this.all.filter((each) => each.moved).length;
    const fresh = told.scans.filter((each) => !this.rows.has(each.scan));
    for (const each of fresh) {
      this.all.push(each);
      const row = this.#row(each);
      this.rows.set(each.scan, row);
      this.element.append(row);
    }
    this.end.disconnect();
    if (this.element.lastElementChild && fresh.length) this.end.observe(this.element.lastElementChild);
  }

  #row(scan) {
    const row = document.createElement("button");
    row.type = "button";
    row.tabIndex = -1;
    row.addEventListener("click", () => this.chosen(scan.scan));
    this.#fill(row, scan);
    return row;
  }

  #fill(row, scan) {
    const picture = document.createElement("img");
    picture.alt = "";
    picture.loading = "lazy";
    picture.decoding = "async";
    if (scan.version) picture.src = smallAddress(scan);
    const words = document.createElement("span");
    const name = document.createElement("span");
    name.className = "name";
    const parts = scan.scan.split("/");
    name.textContent = parts.pop();
    const place = document.createElement("span");
    place.className = "in";
    place.textContent = [parts.join("/"), scan.word].filter(Boolean).join(" · ");
    words.append(name, place, stateLabel(scan.state));
    words.style.minWidth = "0";
    row.title = scan.scan;
    row.replaceChildren(picture, words);
  }

  // A scan that has another state by now keeps its place until the list is asked for again.
  changed(scan) {
    const known = this.all.find((each) => each.scan === scan.scan);
    if (!known) return;
    if (known.state !== scan.state && this.query.show !== "all") known.moved = true;
    Object.assign(known, scan);
    const row = this.rows.get(scan.scan);
    row.querySelector(".state").replaceWith(stateLabel(scan.state));
  }

  mark(name) {
    this.element.querySelector("[aria-current]")?.removeAttribute("aria-current");
    const row = this.rows.get(name);
    if (!row) return;
    row.setAttribute("aria-current", "true");
    row.scrollIntoView({ block: "nearest" });
    if (this.index(name) > this.all.length - 20) this.more();
  }

  index(name) { return this.all.findIndex((each) => each.scan === name); }

  beside(name, steps) {
    const at = this.index(name);
    return this.all[at < 0 ? 0 : at + steps];
  }
}
