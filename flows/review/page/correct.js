// Correcting: a place, a colour, who says so and from what; the hint is written, and what is in view shows it at once.

import * as api from "/page/api.js";

const $ = (id) => document.getElementById(id);

function button(text, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", press);
  return made;
}

export class Corrector {
  // `desk` has person(), say(text, isTrouble), tile, did({ name, undo, redo }), ordered(), names()
  constructor(viewer, desk) {
    this.viewer = viewer;
    this.desk = desk;
    this.on = false;
    this.told = null; // the hints of the scan
    this.picking = false;
    $("pick").addEventListener("click", () => this.#pick(!this.picking));
    $("box").addEventListener("click", () => {
      this.viewer.drawsBox = $("box").getAttribute("aria-pressed") !== "true";
      $("box").setAttribute("aria-pressed", String(this.viewer.drawsBox));
    });
    $("colour").addEventListener("input", () => this.#choose($("colour").value, $("colour").value, "your colour"));
    $("add-hint").addEventListener("click", () => this.add());
    $("make").addEventListener("click", () => this.#make());
    $("from-other").addEventListener("click", () => this.#other());
    $("other-name").addEventListener("change", () => this.#showOther());
    $("other-picture").addEventListener("click", (event) => this.#takeOther(event));
  }

  // Another scan, or the same with other colours.
  async scan(scan) {
    this.subject = scan;
    this.told = null;
    this.#forget();
    this.viewer.overlay.hints = [];
    this.#draw();
    if (this.on && scan) await this.#begin();
  }

  async toggle(on = !this.on) {
    this.on = on;
    $("correct").hidden = !on;
    $("correct-button").setAttribute("aria-pressed", String(on));
    document.body.classList.toggle("correcting", on);
    this.viewer.drawsBox = on && $("box").getAttribute("aria-pressed") === "true";
    if (!on) {
      this.#forget();
      this.viewer.overlay.hints = $("hints-button").getAttribute("aria-pressed") === "true" ? this.told?.hints || [] : [];
      this.viewer.overlay.draw();
      if (this.told && !this.told.made) this.viewer.try({}, this.desk.tile());
    } else if (this.subject) await this.#begin();
  }

  // The hints as marks, also while nobody corrects.
  async marks(on) {
    const scan = this.subject;
    if (!scan?.version) return;
    try {
      if (on && !this.told) this.told = await api.hints(scan.scan);
    } catch (error) { this.desk.say(error.message, true); return; }
    if (this.subject !== scan) return;
    this.viewer.overlay.hints = on || this.on ? this.told?.hints || [] : [];
    this.viewer.overlay.draw();
    if (on && !this.told.count) this.desk.say("No hints of this scan yet.");
  }

  async #begin() {
    const scan = this.subject;
    if (!scan.version) return;
    this.#words("Looking at the whole scan once …");
    try {
      const told = await api.hints(scan.scan);
      if (this.subject !== scan) return;
      this.#take(told);
      await api.look(scan.scan);
    } catch (error) {
      if (this.subject === scan) this.#words(error.message);
      return;
    }
    if (this.subject === scan && !this.at && !this.box) this.#words("Click a place whose colour you know.");
  }

  async place(at, box = null) {
    const scan = this.subject;
    if (!this.on || !scan?.version) return;
    if (this.picking) {
      this.#pick(false);
      try {
        const found = await api.place(scan.scan, ...at);
        this.#choose(found.colour, found.colour, "picked");
      } catch (error) { this.desk.say(error.message, true); }
      return;
    }
    [this.at, this.box] = [at, box];
    this.viewer.overlay.at = at;
    this.viewer.overlay.box = box;
    this.viewer.overlay.draw();
    this.#draw();
    try {
      const middle = box ? [Math.floor(box[0] + box[2] / 2), Math.floor(box[1] + box[3] / 2)] : at;
      const found = await api.place(scan.scan, ...middle);
      if (this.at !== at || this.box !== box) return;
      this.found = found;
      this.#words("Which colour is it?");
      this.#draw();
    } catch (error) { this.desk.say(error.message, true); }
  }

  drawn(box) {
    if (this.on) this.place([box[0], box[1]], box);
  }

  #choose(colour, swatch, words) {
    this.colour = { colour, swatch, words };
    if (/^#[0-9a-f]{6}$/.test(swatch)) $("colour").value = swatch;
    this.#draw();
  }

  #pick(on) {
    this.picking = on;
    $("pick").setAttribute("aria-pressed", String(on));
    if (on) this.#words("Click the place that has the colour.");
  }

  #forget() {
    this.at = this.box = this.found = this.colour = null;
    this.#pick(false);
    this.viewer.overlay.at = this.viewer.overlay.box = null;
  }

  #words(text) { $("correct-words").textContent = text; }

  // The hints as they are now, in the list, on the picture and in its colours.
  #take(told) {
    this.told = told;
    this.viewer.overlay.hints = told.hints;
    this.viewer.overlay.draw();
    this.#draw();
    return this.viewer.try(told.made ? {} : { hints: told.stamp }, this.desk.tile());
  }

  async #change(values) {
    const scan = this.subject;
    const told = await api.changeHint({ scan: scan.scan, version: scan.version, seen: this.told.stamp, ...values });
    if (this.subject === scan) await this.#take(told);
    return told;
  }

  async add() {
    if (!this.on || !this.told) return;
    if (!this.at && !this.box) { this.desk.say("Click a place in the picture first.", true); return; }
    if (!this.colour) { this.desk.say("Choose a colour first.", true); return; }
    const author = this.desk.person();
    if (!author) return;
    const add = {
      ...(this.box ? { box: this.box } : { at: this.at }), colour: this.colour.colour, author, source: $("source").value.trim(),
      ...($("reach").value && { reach: Number($("reach").value) }),
    };
    $("add-hint").disabled = true;
    try {
      const told = await this.#change({ add });
      const [index, hint] = [told.hints.length - 1, told.hints.at(-1).hint];
      this.#did("hint", { remove: index }, { insert: index, hint });
      this.#forget();
      this.#words("Written. Click the next place, or colour the whole scan.");
      this.#draw();
      this.viewer.overlay.draw();
    } catch (error) { this.desk.say(error.message, true); }
    $("add-hint").disabled = false;
  }

  #did(name, undo, redo) {
    const scan = this.subject;
    const go = async (values) => {
      if (this.subject?.scan !== scan.scan || !this.on) await this.desk.open(scan.scan);
      if (!this.on) await this.toggle(true);
      await this.#change(values);
    };
    this.desk.did({ name: `${scan.scan}: ${name}`, undo: () => go(undo), redo: () => go(redo) });
  }

  async #remove(index) {
    const { hint } = this.told.hints[index];
    try {
      await this.#change({ remove: index });
      if (hint) this.#did("hint removed", { insert: index, hint }, { remove: index });
    } catch (error) { this.desk.say(error.message, true); }
  }

  async #make() {
    try {
      await api.order({ scan: this.subject.scan, version: this.subject.version, what: "hints" });
      this.desk.ordered();
    } catch (error) { this.desk.say(error.message, true); }
  }

  #swatch({ colour, swatch, words }) {
    const made = button(words, () => this.#choose(colour, swatch, words));
    const spot = document.createElement("span");
    spot.className = "spot";
    spot.style.background = swatch;
    made.prepend(spot);
    made.setAttribute("aria-pressed", String(this.colour?.colour === colour && this.colour.words === words));
    return made;
  }

  #draw() {
    const choices = [];
    if (this.found) {
      this.found.likely.forEach((each, index) => choices.push({
        colour: each.colour, swatch: each.colour, words: `${["likeliest", "second", "third"][index] || "other"} ${Math.round(100 * each.share)} %`,
      }));
      choices.push({ colour: "gray", swatch: "#777777", words: "no colour" });
    }
    if (this.colour && !choices.some((each) => each.colour === this.colour.colour && each.words === this.colour.words)) choices.push(this.colour);
    $("swatches").replaceChildren(...choices.map((each) => this.#swatch(each)));
    const hints = this.told?.hints || [];
    $("hints-there").replaceChildren(...hints.map((each, index) => {
      const line = document.createElement("li");
      const spot = document.createElement("span");
      spot.className = "spot";
      spot.style.background = each.swatch;
      const words = document.createElement("span");
      const who = [each.hint?.author, each.hint?.source].filter(Boolean).join(", ");
      words.textContent = `${each.words}${who ? ` · ${who}` : ""}`;
      line.append(spot, words);
      if (!this.desk.readOnly()) {
        const remove = button("Remove", () => this.#remove(index));
        remove.setAttribute("aria-label", `Remove hint ${index + 1}`);
        line.append(remove);
      }
      return line;
    }));
    const others = this.told?.others > 0 ? ` and ${this.told.others} painted` : "";
    $("hints-count").textContent = this.told ? `Hints: ${hints.length}${others}` : "Hints";
    $("make").disabled = !this.told || this.told.made || this.desk.readOnly();
    $("make").textContent = this.told?.made && this.told.count ? "The whole scan has them" : "Colour the whole scan with them";
    $("add-hint").disabled = this.desk.readOnly() || !(this.at && this.colour);
  }

  // From another scan

  #other() {
    $("other-names").replaceChildren(...this.desk.names().slice(0, 500).map((name) => new Option(name, name)));
    $("other").showModal();
    if ($("other-name").value) this.#showOther();
  }

  async #showOther() {
    const name = $("other-name").value;
    $("other-picture").hidden = true;
    try {
      const scan = await api.scan(name);
      if (!scan.levels.length) throw new api.Problem("it has no colours");
      this.otherScan = scan;
      $("other-image").src = api.smallAddress(scan);
      $("other-picture").hidden = false;
      $("other-words").textContent = "Click the place that has the colour.";
    } catch (error) { $("other-words").textContent = error.message; }
  }

  async #takeOther(event) {
    const frame = $("other-image").getBoundingClientRect();
    const [width, height] = this.otherScan.levels[0];
    const share = (at, from, size) => Math.min(0.999999, Math.max(0, (at - from) / size));
    const [x, y] = event.detail === 0 ? [Math.floor(width / 2), Math.floor(height / 2)] // by a key
      : [Math.floor(width * share(event.clientX, frame.left, frame.width)), Math.floor(height * share(event.clientY, frame.top, frame.height))];
    try {
      const found = await api.place(this.otherScan.scan, x, y);
      this.#choose({ as_in: this.otherScan.scan, at: [x, y] }, found.colour, `as in ${this.otherScan.scan}`);
      $("other").close();
    } catch (error) { $("other-words").textContent = error.message; }
  }
}
