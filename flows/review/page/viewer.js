// The picture: scan and colours under one curtain, or side by side, with one zoom.
/* global OpenSeadragon */

import { doubtAddress, tileAddress } from "/page/api.js";
import { Overlay } from "/page/overlay.js";

// Its warnings are about tiles of a picture that was left before they came, which is the rule here.
OpenSeadragon.console = { ...OpenSeadragon.console, error: (...told) => console.error(...told), warn() {}, log() {} };

export const VIEWS = ["curtain", "side by side", "scan", "colours"];
const STEP = 2; // percent that a key moves the curtain

function source(scan, side, tile, trial = {}) {
  const [width, height] = scan.levels[0];
  const top = scan.levels.length - 1;
  return {
    width, height, tileSize: tile, tileOverlap: 0, minLevel: 0, maxLevel: top,
    getTileUrl: (level, x, y) => tileAddress(scan, side, top - level, x, y, trial),
  };
}

function made(element) {
  return OpenSeadragon({
    element, drawer: "canvas", showNavigationControl: false, animationTime: 0.25, springStiffness: 12, minPixelRatio: 0.9,
    maxZoomPixelRatio: 8, minZoomImageRatio: 0.8, visibilityRatio: 0.5, gestureSettingsMouse: { clickToZoom: false },
    gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true }, immediateRender: false, imageLoaderLimit: 6,
    placeholderFillStyle: null, preserveImageSizeOnResize: true, tabIndex: -1,
  });
}

function box(one, other) {
  const [x, y] = [Math.floor(Math.min(one.x, other.x)), Math.floor(Math.min(one.y, other.y))];
  return [x, y, Math.ceil(Math.max(one.x, other.x)) - x, Math.ceil(Math.max(one.y, other.y)) - y];
}

export class Viewer {
  constructor(stage, told) {
    this.told = told; // called with the zoom, with a place that was clicked, a box that was drawn, and trouble
    this.stage = stage;
    this.curtain = stage.querySelector("#curtain");
    this.first = made(stage.querySelector("#first"));
    this.second = null;
    this.view = "curtain";
    this.place = 50;
    this.loading = 0;
    this.waiting = []; // what goes on where a picture is left
    this.overlay = new Overlay(stage.querySelector("#overlay"), this.first, () => this.above);
    this.#listen(this.first);
    for (const event of ["animation", "open", "resize", "update-viewport"]) this.first.addHandler(event, () => this.#arrange());
    this.first.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
    this.#followHand();
  }

  get images() {
    return { below: this.first.world.getItemAt(0), above: this.above };
  }

  // Show a scan: `left` is what is under the left of the curtain, the scan itself or another version of its colours.
  async open(scan, tile, left = null) {
    this.close();
    const number = this.loading;
    this.sources = [source(left || scan, left ? "colour" : "scan", tile), source(scan, "colour", tile)];
    this.scan = scan;
    await this.#add(this.first, 0, 0);
    if (number !== this.loading) return;
    const above = await this.#add(this.first, 1, 1);
    if (number !== this.loading) return;
    this.above = above;
    this.first.viewport.goHome(true);
    if (this.view === "side by side") this.#openSecond();
    this.#arrange();
  }

  // Other colours are tried on what is in view; zoom and place stay, and what was there stays until all of it has come.
  async try(trial, tile) {
    const number = this.loading;
    if (!this.scan || !this.above) return;
    this.sources[1] = source(this.scan, "colour", tile, trial);
    const old = this.above;
    const fresh = await this.#add(this.first, 1, this.first.world.getIndexOfItem(old) + 1);
    if (this.second?.world.getItemCount()) await this.#add(this.second, 1, 0, true);
    if (number !== this.loading || !fresh) return;
    if (this.fading) this.first.world.removeItem(this.fading);
    [this.fading, this.above] = [old, fresh];
    const there = () => {
      if (this.above !== fresh || number !== this.loading) return;
      if (this.fading) this.first.world.removeItem(this.fading);
      this.fading = null;
      this.told({ drawn: trial });
    };
    if (fresh.getFullyLoaded()) there();
    else fresh.addOnceHandler("fully-loaded-change", there);
    this.#arrange();
  }

  close() {
    this.loading += 1;
    this.scan = this.above = this.fading = null;
    this.first.close();
    if (this.second) this.second.close();
    for (const left of this.waiting.splice(0)) left();
  }

  // Add the picture of a source; comes to it, or to nothing where it fails or is left meanwhile: OpenSeadragon says
  // nothing of a picture that it has not begun when it closes.
  #add(viewer, which, index, replace = false) {
    return new Promise((done) => {
      this.waiting.push(done);
      viewer.addTiledImage({
        tileSource: this.sources[which], index, replace, x: 0, y: 0, width: 1, success: ({ item }) => done(item), error: () => done(),
      });
    });
  }

  show(view) {
    this.view = view;
    const two = view === "side by side";
    this.stage.querySelector("#second").hidden = !two;
    this.curtain.hidden = view !== "curtain";
    if (two && this.scan) this.#openSecond();
    this.#arrange();
  }

  // For as long as a key is held.
  peek(on) {
    this.peeking = on;
    this.#arrange();
  }

  doubt(on) {
    this.layer = on;
    if (this.doubtImage) this.first.world.removeItem(this.doubtImage);
    this.doubtImage = null;
    if (!on || !this.scan) return;
    const scan = this.scan;
    this.first.addSimpleImage({
      url: doubtAddress(scan), x: 0, y: 0, width: 1, opacity: 0.55,
      success: ({ item }) => {
        if (this.layer && this.scan === scan) this.doubtImage = item;
        else this.first.world.removeItem(item);
      },
      error: () => this.told({ trouble: "no map of doubt is stored for these colours" }),
    });
  }

  fit() { this.first.viewport.goHome(); }
  full() { this.first.viewport.zoomTo(this.images.above.imageToViewportZoom(1 / devicePixelRatio)); }
  nearer(factor) { this.first.viewport.zoomBy(factor); this.first.viewport.applyConstraints(); }
  move(steps) { this.#put(this.place + steps * STEP); }

  #openSecond() {
    if (!this.second) {
      this.second = made(this.stage.querySelector("#second"));
      this.second.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
      this.#listen(this.second);
      this.second.addHandler("animation", () => this.#follow(this.second, this.first));
      this.first.addHandler("animation", () => this.#follow(this.first, this.second));
    }
    this.second.close();
    this.second.addTiledImage({
      tileSource: this.sources[1], x: 0, y: 0, width: 1, success: () => {
        this.first.viewport.resize(); this.first.viewport.goHome(true); this.second.viewport.goHome(true);
      },
    });
  }

  // One viewer takes the place and zoom of the other, unless that is just what it is told.
  #follow(from, to) {
    if (this.view !== "side by side" || this.leading === to || !to.world.getItemCount()) return;
    this.leading = from;
    to.viewport.zoomTo(from.viewport.getZoom(true), null, true);
    to.viewport.panTo(from.viewport.getCenter(true), true);
    to.forceRedraw();
    queueMicrotask(() => { this.leading = null; });
  }

  #put(percent) {
    this.place = Math.min(100, Math.max(0, percent));
    this.curtain.style.left = `${this.place}%`;
    this.curtain.setAttribute("aria-valuenow", String(Math.round(this.place)));
    this.#arrange();
  }

  #arrange() {
    const { below, above } = this.images;
    if (!below || !above) return;
    const view = this.peeking ? "scan" : this.view;
    below.setOpacity(view === "colours" ? 0 : 1);
    const shown = [above, ...(this.fading ? [this.fading] : [])];
    for (const each of shown) each.setOpacity(view === "scan" || view === "side by side" ? 0 : 1);
    const { x: width, y: height } = above.getContentSize();
    if (view === "curtain") {
      const at = this.first.viewport.pointFromPixel(
        new OpenSeadragon.Point((this.place / 100) * this.stage.clientWidth, 0), true);
      const cut = Math.min(width, Math.max(0, above.viewportToImageCoordinates(at, true).x));
      for (const each of shown) {
        each.setClip(cut >= width ? new OpenSeadragon.Rect(width - 0.01, 0, 0.01, height)
          : new OpenSeadragon.Rect(cut, 0, width - cut, height));
      }
    } else for (const each of shown) each.setClip(null);
    this.first.forceRedraw();
    this.overlay.draw();
    this.told({ zoom: above.viewportToImageZoom(this.first.viewport.getZoom(true)) * devicePixelRatio });
  }

  // Clicks and boxes on the picture, while somebody corrects it.
  #listen(viewer) {
    const place = (position) => {
      const item = viewer.world.getItemAt(0);
      const { x, y } = item.viewerElementToImageCoordinates(position);
      const { x: width, y: height } = item.getContentSize();
      return { x: Math.min(width, Math.max(0, x)), y: Math.min(height, Math.max(0, y)), inside: x >= 0 && y >= 0 && x < width && y < height };
    };
    viewer.addHandler("canvas-click", (event) => {
      if (!event.quick || !this.scan || !viewer.world.getItemCount()) return;
      const at = place(event.position);
      if (at.inside) this.told({ at: [Math.floor(at.x), Math.floor(at.y)] });
    });
    let start = null;
    viewer.addHandler("canvas-press", (event) => {
      start = this.drawsBox && this.scan && viewer.world.getItemCount() ? place(event.position) : null;
    });
    viewer.addHandler("canvas-drag", (event) => {
      if (!start) return;
      event.preventDefaultAction = true;
      this.overlay.box = box(start, place(event.position));
      this.overlay.draw();
    });
    viewer.addHandler("canvas-drag-end", (event) => {
      if (!start) return;
      event.preventDefaultAction = true;
      const drawn = box(start, place(event.position));
      start = null;
      if (drawn[2] >= 1 && drawn[3] >= 1) this.told({ box: drawn });
    });
  }

  #followHand() {
    const at = (event) => {
      const box = this.stage.getBoundingClientRect();
      this.#put(((event.clientX - box.left) / box.width) * 100);
    };
    let held = null;
    this.curtain.addEventListener("pointerdown", (event) => {
      held = event.pointerId;
      this.curtain.setPointerCapture(held);
      event.preventDefault();
      this.curtain.focus({ preventScroll: true });
    });
    this.curtain.addEventListener("pointermove", (event) => { if (event.pointerId === held) at(event); });
    for (const end of ["pointerup", "pointercancel"]) this.curtain.addEventListener(end, () => { held = null; });
    this.stage.addEventListener("pointermove", (event) => {
      if (event.shiftKey && held === null && this.view === "curtain") at(event);
    });
  }
}
