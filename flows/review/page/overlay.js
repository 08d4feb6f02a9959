// What lies over the picture as lines and marks: hints, the place that is being corrected, blocks and tiles.
/* global OpenSeadragon */

export class Overlay {
  constructor(canvas, viewer, image) {
    this.canvas = canvas;
    this.viewer = viewer;
    this.image = image;
    this.hints = []; // places and swatches, as the desk tells them
    this.at = null; // a pixel
    this.box = null; // x, y, width, height
    this.seams = null; // places of lines
  }

  draw() {
    const { canvas, viewer } = this;
    const image = this.image();
    const [width, height] = [viewer.element.clientWidth, viewer.element.clientHeight];
    const scale = devicePixelRatio;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
      [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!image) return;
    const on = (x, y) => viewer.viewport.pixelFromPoint(image.imageToViewportCoordinates(new OpenSeadragon.Point(x, y), true), true);
    if (this.seams) this.#lines(pen, on, image.getContentSize());
    for (const { places, swatch } of this.hints) for (const place of places) this.#mark(pen, on, place, swatch);
    if (this.box) {
      const [x, y, w, h] = this.box;
      this.#mark(pen, on, [[x, y], [x + w, y], [x + w, y + h], [x, y + h]], null);
    } else if (this.at) this.#cross(pen, on(this.at[0] + 0.5, this.at[1] + 0.5));
  }

  #mark(pen, on, place, swatch) {
    if (typeof place[0] === "number") {
      const { x, y } = on(...place);
      pen.beginPath();
      pen.arc(x, y, 6, 0, 7);
      pen.fillStyle = swatch;
      pen.fill();
    } else {
      pen.beginPath();
      for (const corner of place) { const { x, y } = on(...corner); pen.lineTo(x, y); }
      pen.closePath();
    }
    // Seen on any ground.
    for (const [line, style] of [[4, "#000c"], [2, "#fff"]]) {
      pen.lineWidth = line;
      pen.strokeStyle = style;
      pen.stroke();
    }
  }

  #cross(pen, { x, y }) {
    for (const [line, style] of [[4, "#000c"], [2, "#fff"]]) {
      pen.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        pen.moveTo(x + 4 * dx, y + 4 * dy);
        pen.lineTo(x + 12 * dx, y + 12 * dy);
      }
      pen.lineWidth = line;
      pen.strokeStyle = style;
      pen.stroke();
    }
  }

  #lines(pen, on, { x: width, y: height }) {
    const [low, high] = [on(0, 0), on(width, height)];
    const sets = [[this.seams.tiles, 1, "#ffd24a99", 6], [this.seams.blocks, 2, "#40c4ff", 0]];
    for (const [lines, thickness, style, least] of sets) {
      const gap = lines.step * ((high.x - low.x) / width);
      if (gap < least) continue; // they would cover all of it
      pen.beginPath();
      for (const at of lines.x) { const { x } = on(at, 0); pen.moveTo(x, low.y); pen.lineTo(x, high.y); }
      for (const at of lines.y) { const { y } = on(0, at); pen.moveTo(low.x, y); pen.lineTo(high.x, y); }
      pen.lineWidth = thickness;
      pen.strokeStyle = style;
      pen.stroke();
    }
  }
}
