// Marks on a picture: class ids, one a pixel, painted with brush, polygon, eraser and clicks.

const UNDO_STEPS = 60;
const UNKNOWN = 255;

export class Editor {
  // changed(): something was painted. grow(clicks): asks for the region that clicks mean, gives ids
  // or null.
  constructor(stage, { changed, grow }) {
    this.stage = stage;
    this.sheet = stage.querySelector("#sheet");
    this.photo = stage.querySelector("#photo");
    this.canvas = stage.querySelector("#paint");
    this.lines = stage.querySelector("#lines");
    this.changed = changed;
    this.grow = grow;
    this.tool = "brush";
    this.classId = 1;
    this.radius = 14;
    this.cursor = null;
    this.pointers = new Map();
    this.growing = new Set(); // clicks whose regions are on their way
    this.palette = new Uint32Array(256);
    this.palette[UNKNOWN] = packed("#888888");
    this.reset();
    this.listen();
  }

  reset() {
    this.ids = null;
    this.past = [];
    this.future = [];
    this.corners = [];
    this.clicks = [];
    this.stroke = null;
    this.sheet.hidden = true;
    this.lines.replaceChildren();
  }

  // Colors "#rrggbb" of ids.
  paint(colors) {
    colors.forEach(([id, color]) => (this.palette[id] = packed(color)));
  }

  // Show a picture and its marks.
  open(url, alt, width, height, ids) {
    this.reset();
    this.width = width;
    this.height = height;
    this.photo.src = url;
    this.photo.alt = alt;
    this.canvas.width = width;
    this.canvas.height = height;
    this.lines.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.sheet.style.width = `${width}px`;
    this.sheet.style.height = `${height}px`;
    this.context = this.canvas.getContext("2d");
    this.pixels = this.context.createImageData(width, height);
    this.colored = new Uint32Array(this.pixels.data.buffer);
    this.sheet.hidden = false;
    this.canvas.hidden = false;
    this.show(ids);
    this.fit();
  }

  // Other marks in place of these; nothing to undo.
  show(ids) {
    this.ids = ids;
    this.past = [];
    this.future = [];
    this.clicks = [];
    this.refresh(0, 0, this.width, this.height);
  }

  refresh(left, top, right, bottom) {
    for (let y = top; y < bottom; y++) {
      const row = y * this.width;
      for (let i = row + left; i < row + right; i++) this.colored[i] = this.palette[this.ids[i]];
    }
    this.context.putImageData(this.pixels, 0, 0, left, top, right - left, bottom - top);
  }

  toggle() {
    this.canvas.hidden = !this.canvas.hidden;
  }

  // ---- the view

  fit() {
    const { clientWidth, clientHeight } = this.stage;
    this.scale = Math.min(clientWidth / this.width, clientHeight / this.height);
    this.left = (clientWidth - this.width * this.scale) / 2;
    this.top = (clientHeight - this.height * this.scale) / 2;
    this.place();
  }

  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    if (!this.ids) return;
    const whole = Math.min(this.stage.clientWidth / this.width, this.stage.clientHeight / this.height);
    const scale = Math.min(40, Math.max(whole / 2, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.place();
  }

  place() {
    this.sheet.style.transform = `translate(${this.left}px, ${this.top}px) scale(${this.scale})`;
    this.canvas.style.imageRendering = this.scale > 2 ? "pixelated" : "auto";
  }

  at(event) {
    const box = this.stage.getBoundingClientRect();
    return [(event.clientX - box.left - this.left) / this.scale, (event.clientY - box.top - this.top) / this.scale];
  }

  // ---- painting

  begin() {
    this.clicks = [];
    this.before = this.ids.slice();
    this.dirty = [this.width, this.height, 0, 0];
  }

  // Keep what changed since begin(), so that it can be undone.
  end() {
    const [left, top, right, bottom] = this.dirty;
    if (right <= left || bottom <= top) return;
    const step = {
      rect: this.dirty,
      before: this.cut(this.before, this.dirty),
      after: this.cut(this.ids, this.dirty),
    };
    if (step.before.every((id, i) => id === step.after[i])) return; // nothing was changed
    this.past.push(step);
    if (this.past.length > UNDO_STEPS) this.past.shift();
    this.future = [];
    this.changed();
  }

  cut(ids, [left, top, right, bottom]) {
    const part = new Uint8Array((right - left) * (bottom - top));
    for (let y = top; y < bottom; y++) {
      part.set(ids.subarray(y * this.width + left, y * this.width + right), (y - top) * (right - left));
    }
    return part;
  }

  paste(part, [left, top, right, bottom]) {
    for (let y = top; y < bottom; y++) {
      const at = (y - top) * (right - left);
      this.ids.set(part.subarray(at, at + right - left), y * this.width + left);
    }
    this.refresh(left, top, right, bottom);
  }

  undo() {
    if (this.corners.length) {
      this.corners.pop();
      this.draw();
      return;
    }
    this.step(this.past, this.future, "before");
  }

  redo() {
    this.step(this.future, this.past, "after");
  }

  step(from, to, which) {
    const step = from.pop();
    if (!step) return;
    to.push(step);
    this.clicks = [];
    this.draw();
    this.paste(step[which], step.rect);
    this.changed();
  }

  get clicking() {
    return this.tool === "grow" || this.tool === "shrink";
  }

  get value() {
    return this.tool === "erase" ? 0 : this.classId;
  }

  // A round stroke from one point to another.
  dab([x0, y0], [x1, y1]) {
    const radius = Math.max(0.5, this.radius);
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, radius / 3)));
    const left = clamp(Math.floor(Math.min(x0, x1) - radius), 0, this.width);
    const right = clamp(Math.ceil(Math.max(x0, x1) + radius) + 1, 0, this.width);
    const top = clamp(Math.floor(Math.min(y0, y1) - radius), 0, this.height);
    const bottom = clamp(Math.ceil(Math.max(y0, y1) + radius) + 1, 0, this.height);
    for (let i = 0; i <= steps; i++) {
      const x = x0 + ((x1 - x0) * i) / steps;
      const y = y0 + ((y1 - y0) * i) / steps;
      for (let row = Math.max(top, Math.ceil(y - radius)); row < Math.min(bottom, y + radius + 1); row++) {
        const half = Math.sqrt(Math.max(0, radius * radius - (row - y) * (row - y)));
        if (Math.abs(row - y) > radius) continue;
        const from = clamp(Math.ceil(x - half), 0, this.width);
        const to = clamp(Math.floor(x + half) + 1, 0, this.width);
        if (to > from) this.ids.fill(this.value, row * this.width + from, row * this.width + to);
      }
    }
    if (right > left && bottom > top) this.touched(left, top, right, bottom);
  }

  touched(left, top, right, bottom) {
    const d = this.dirty;
    this.dirty = [Math.min(d[0], left), Math.min(d[1], top), Math.max(d[2], right), Math.max(d[3], bottom)];
    this.refresh(left, top, right, bottom);
  }

  // The inside of the corners, by where each row's middle enters and leaves (even-odd).
  fill() {
    const corners = this.corners;
    this.corners = [];
    this.draw();
    if (corners.length < 3) return;
    this.begin();
    const rows = corners.map(([, y]) => y);
    const top = clamp(Math.floor(Math.min(...rows)), 0, this.height);
    const bottom = clamp(Math.ceil(Math.max(...rows)), 0, this.height);
    for (let row = top; row < bottom; row++) {
      const y = row + 0.5;
      const crossings = [];
      corners.forEach(([x0, y0], i) => {
        const [x1, y1] = corners[(i + 1) % corners.length];
        if (y0 <= y !== y1 <= y) crossings.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0));
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        const from = clamp(Math.round(crossings[i]), 0, this.width);
        const to = clamp(Math.round(crossings[i + 1]), 0, this.width);
        if (to > from) this.ids.fill(this.value, row * this.width + from, row * this.width + to);
      }
    }
    if (bottom > top) this.touched(0, top, this.width, bottom);
    this.end();
  }

  // Every click has its region, or failed to get one.
  async settled() {
    while (this.growing.size) await Promise.allSettled([...this.growing]);
  }

  grown(points, without) {
    const work = this.growRegion(points, without).finally(() => this.growing.delete(work));
    this.growing.add(work);
  }

  // Clicks and lines of one class, one after the other, mean one region together: each asks for it
  // anew. "Not this" where none of them grew takes away what is alike at its place.
  async growRegion(points, without) {
    if (this.clicks[0]?.classId !== this.classId || this.clicks.takes) this.clicks = [];
    if (!this.clicks.length) this.ground = this.ids.slice();
    const [x, y] = points[0].map(Math.floor);
    const takes = without && (!this.clicks.length || this.ground[y * this.width + x] > 0);
    if (takes) {
      this.clicks = [];
      this.ground = this.ids.slice();
    }
    const clicks = Object.assign(this.clicks, { takes });
    const click = { points, without: without && !takes, classId: this.classId };
    clicks.push(click);
    const region = await this.grow(clicks.slice());
    while (this.stroke) await new Promise(requestAnimationFrame);
    if (!region) clicks.splice(clicks.indexOf(click), 1);
    if (!region || !this.ids || clicks.at(-1) !== click) return; // a later answer holds this one's
    // painted meanwhile, or clicked for another class: the region is laid over that
    const latest = this.clicks === clicks;
    const others = this.clicks;
    const before = this.ids.slice();
    this.begin();
    if (latest) this.ids.set(this.ground);
    // "not this" only takes away
    const kept = click.without ? before : region;
    for (let i = 0; i < region.length; i++) {
      if (!region[i] || !kept[i]) continue;
      this.ids[i] = takes ? 0 : region[i];
      if (!latest && others.length) this.ground[i] = this.ids[i];
    }
    this.touched(0, 0, this.width, this.height);
    this.end();
    if (!latest) this.clicks = others;
    else if (!takes) this.clicks = clicks;
    this.draw();
  }

  // ---- pointer and keys

  press(point) {
    if (this.tool === "polygon") {
      const [first] = this.corners;
      const near = first && Math.hypot(point[0] - first[0], point[1] - first[1]) * this.scale < 10;
      if (near && this.corners.length > 2) this.fill();
      else this.corners.push(point);
      this.draw();
      return;
    }
    this.stroke = [point];
    if (this.clicking) return this.draw();
    this.begin();
    this.dab(point, point);
  }

  move(point) {
    if (!this.stroke) return;
    const last = this.stroke.at(-1);
    this.stroke.push(point);
    if (this.clicking) this.draw();
    else this.dab(last, point);
  }

  release() {
    const points = this.stroke;
    this.stroke = null;
    if (!points) return;
    if (this.clicking) {
      this.draw();
      this.grown(points, this.tool === "shrink" || this.shifted);
    } else {
      this.end();
    }
  }

  // A second finger means moving the picture: the stroke that began is taken back.
  abandon() {
    if (this.stroke && !this.clicking) {
      this.ids.set(this.before);
      this.refresh(0, 0, this.width, this.height);
    }
    this.stroke = null;
    this.draw();
  }

  listen() {
    const stage = this.stage;
    const moving = (event) => event.button === 1 || this.spaceDown;
    stage.addEventListener("pointerdown", (event) => {
      if (!this.ids || event.button > 1) return;
      stage.focus({ preventScroll: true });
      stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      event.preventDefault();
      if (this.pointers.size > 1) return this.abandon();
      this.panning = moving(event);
      this.shifted = event.shiftKey;
      stage.classList.toggle("moving", this.panning);
      if (!this.panning) this.press(this.at(event));
    });
    stage.addEventListener("pointermove", (event) => {
      if (!this.ids) return;
      const was = this.pointers.get(event.pointerId);
      if (this.pointers.size > 1 && was) return this.pinch(event, was);
      if (was && this.panning) {
        this.left += event.clientX - was[0];
        this.top += event.clientY - was[1];
        this.place();
      } else if (was) {
        const events = event.getCoalescedEvents?.() ?? [];
        for (const each of events.length ? events : [event]) this.move(this.at(each));
      }
      if (was) this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      this.cursor = this.at(event);
      this.draw();
    });
    const up = (event) => {
      if (!this.pointers.delete(event.pointerId)) return;
      stage.classList.remove("moving");
      if (!this.panning && !this.pointers.size) this.release();
      this.panning = this.panning && this.pointers.size > 0;
    };
    stage.addEventListener("pointerup", up);
    stage.addEventListener("pointercancel", up);
    stage.addEventListener("pointerleave", () => {
      this.cursor = null;
      if (this.ids) this.draw();
    });
    stage.addEventListener("dblclick", () => this.tool === "polygon" && this.fill());
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = stage.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    stage.addEventListener("keydown", (event) => this.key(event));
    stage.addEventListener("keyup", (event) => {
      if (event.key !== " ") return;
      this.spaceDown = false;
      if (this.keyPress) this.release();
      this.keyPress = false;
    });
    new ResizeObserver(() => this.ids && this.fit()).observe(stage);
  }

  pinch(event, was) {
    const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
    const box = this.stage.getBoundingClientRect();
    const now = [event.clientX, event.clientY];
    const before = Math.hypot(was[0] - other[0], was[1] - other[1]);
    const after = Math.hypot(now[0] - other[0], now[1] - other[1]);
    this.left += (now[0] - was[0]) / 2;
    this.top += (now[1] - was[1]) / 2;
    this.pointers.set(event.pointerId, now);
    if (before > 0) this.zoom(after / before, (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
  }

  // With the picture in focus: arrows move a cursor, space paints, enter closes a polygon.
  key(event) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.ids || event.ctrlKey || event.metaKey) return;
    const way = ways[event.key];
    if (way) {
      const [x, y] = this.cursor ?? [this.width / 2, this.height / 2];
      const far = (event.shiftKey ? 40 : 5) / this.scale;
      this.cursor = [clamp(x + way[0] * far, 0, this.width), clamp(y + way[1] * far, 0, this.height)];
      if (this.keyPress) this.move(this.cursor);
      this.draw();
    } else if (event.key === " ") {
      if (!this.spaceDown && this.cursor && !this.pointers.size && !this.hovered()) {
        this.keyPress = true;
        this.shifted = event.shiftKey;
        this.press(this.cursor);
      }
      this.spaceDown = true;
    } else if (event.key === "Enter" && this.tool === "polygon") {
      this.fill();
    } else if (event.key === "Escape") {
      this.corners = [];
      this.draw();
    } else {
      return;
    }
    event.preventDefault();
  }

  // Space over the picture is for moving it with the pointer.
  hovered() {
    return this.stage.matches(":hover");
  }

  // ---- lines over the picture: corners, the stroke of a click, the brush's edge

  draw() {
    const shapes = [];
    const points = this.clicking && this.stroke ? this.stroke : this.corners;
    const line = this.corners.length && this.cursor ? [...points, this.cursor] : points;
    if (line.length) {
      const text = line.map(([x, y]) => `${x},${y}`).join(" ");
      shapes.push(["polyline", { points: text, class: "under" }], ["polyline", { points: text }]);
    }
    if (this.clicking) {
      for (const { points, without } of this.clicks) {
        const [cx, cy] = points.at(-1);
        const r = 5 / this.scale;
        shapes.push(["circle", { cx, cy, r, class: "under" }], ["circle", { cx, cy, r, class: without ? "not" : "yes" }]);
      }
    }
    if (this.cursor) {
      const paints = this.tool === "brush" || this.tool === "erase";
      const [cx, cy] = this.cursor;
      const r = paints ? this.radius : 4 / this.scale;
      shapes.push(["circle", { cx, cy, r, class: "under" }], ["circle", { cx, cy, r }]);
    }
    this.lines.replaceChildren(
      ...shapes.map(([name, attributes]) => {
        const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
        Object.entries(attributes).forEach(([key, value]) => shape.setAttribute(key, value));
        return shape;
      }),
    );
  }
}

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

// "#rrggbb" as a pixel in memory order, opaque.
function packed(code) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(code.slice(at, at + 2), 16));
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}
