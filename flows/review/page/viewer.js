// The picture: scan and colours under one curtain, or side by side, with one zoom.
/* global OpenSeadragon */

import { doubtAddress, tileAddress } from "/page/api.js";

// Its warnings are about tiles of a picture that was left before they came, which is the rule here.
OpenSeadragon.console = { ...OpenSeadragon.console, error: (...told) => console.error(...told), warn() {}, log() {} };

export const VIEWS = ["curtain", "side by side", "scan", "colours"];
const STEP = 2; // percent that a key moves the curtain

function source(scan, side, tile, grade = {}) {
  const [width, height] = scan.levels[0];
  const top = scan.levels.length - 1;
  return {
    width, height, tileSize: tile, tileOverlap: 0, minLevel: 0, maxLevel: top,
    getTileUrl: (level, x, y) => tileAddress(scan, side, top - level, x, y, grade),
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

export class Viewer {
  constructor(stage, told) {
    this.told = told; // called with the zoom, and with the place of the curtain
    this.stage = stage;
    this.curtain = stage.querySelector("#curtain");
    this.first = made(stage.querySelector("#first"));
    this.second = null;
    this.view = "curtain";
    this.place = 50;
    this.loading = 0;
    for (const event of ["animation", "open", "resize", "update-viewport"]) this.first.addHandler(event, () => this.#arrange());
    this.first.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
    this.#followHand();
  }

  get images() {
    return { below: this.first.world.getItemAt(0), above: this.first.world.getItemAt(1) };
  }

  // Show a scan: `left` is what is under the left of the curtain, the scan itself or another version of its colours.
  async open(scan, tile, left = null) {
    const number = ++this.loading;
    const sources = [source(left || scan, left ? "colour" : "scan", tile), source(scan, "colour", tile)];
    this.sources = sources;
    this.scan = scan;
    this.first.close();
    if (this.second) this.second.close();
    const add = (viewer, tileSource, index) => new Promise((done) => {
      viewer.addTiledImage({ tileSource, index, x: 0, y: 0, width: 1, success: done, error: done });
    });
    await add(this.first, sources[0], 0);
    if (number !== this.loading) return;
    await add(this.first, sources[1], 1);
    if (number !== this.loading) return;
    this.first.viewport.goHome(true);
    if (this.view === "side by side") this.#openSecond();
    this.#arrange();
  }

  // Other colours are tried on what is in view; zoom and place stay.
  async grade(grade, tile) {
    const number = this.loading;
    if (!this.scan) return;
    this.sources[1] = source(this.scan, "colour", tile, grade);
    const replace = (viewer, index) => new Promise((done) => {
      viewer.addTiledImage({ tileSource: this.sources[1], index, replace: true, x: 0, y: 0, width: 1, success: done, error: done });
    });
    await replace(this.first, 1);
    if (this.second?.world.getItemCount()) await replace(this.second, 0);
    if (number === this.loading) this.#arrange();
  }

  close() {
    this.loading += 1;
    this.scan = null;
    this.first.close();
    if (this.second) this.second.close();
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
      url: doubtAddress(scan), x: 0, y: 0, width: 1, opacity: 0.55, index: 2,
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
    above.setOpacity(view === "scan" || view === "side by side" ? 0 : 1);
    const { x: width, y: height } = above.getContentSize();
    if (view === "curtain") {
      const at = this.first.viewport.pointFromPixel(
        new OpenSeadragon.Point((this.place / 100) * this.stage.clientWidth, 0), true);
      const cut = Math.min(width, Math.max(0, above.viewportToImageCoordinates(at, true).x));
      above.setClip(cut >= width ? new OpenSeadragon.Rect(width - 0.01, 0, 0.01, height)
        : new OpenSeadragon.Rect(cut, 0, width - cut, height));
    } else above.setClip(null);
    this.first.forceRedraw();
    this.told({ zoom: above.viewportToImageZoom(this.first.viewport.getZoom(true)) * devicePixelRatio });
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
