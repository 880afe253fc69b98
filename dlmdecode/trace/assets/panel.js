"use strict";
// One text of one run. Whatever comes from the data becomes text by textContent only.

const LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const LEVEL = new Map([...LEVELS].map((letter, level) => [letter, level / 63]));
const HUES = [210, 30, 140, 280, 0, 180, 60, 320];

function element(parent, name, text = "", style = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = style;
  parent.append(made);
  return made;
}

function after(list, step) { // how many entries of a list, sorted by step, are not after `step`
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].step <= step) low = middle + 1; else high = middle;
  }
  return low;
}

class Panel {
  // data: title, facts, prompt, length, mask, eos, vocabulary, rules, frames
  constructor(parent, data) {
    this.data = data;
    this.root = element(parent, "section");
    element(this.root, "h2", data.title);
    this.facts = element(this.root, "p", "", "facts");
    element(this.root, "p", data.prompt, "prompt");
    this.text = element(this.root, "div", "", "text");
    this.rejected = element(this.root, "div", "", "rejected");
    this.map = element(this.root, "canvas");
    this.map.setAttribute("aria-label", "position across, step down");
    this.legend = element(this.root, "div", "", "legend");
    this.writes = [], this.drafts = [], this.spans = [], this.shown = [];
    this.grow(data.length);
    data.frames.forEach((frame, index) => this.take(frame, index + 1));
    this.step = -1, this.chosen = -1;
  }

  grow(length) {
    while (this.spans.length < length) {
      const span = element(this.text, "span");
      span.dataset.at = this.spans.length;
      this.spans.push(span), this.shown.push(""), this.writes.push([]), this.drafts.push([]);
    }
  }

  take(frame, step) { // a frame of the data, in the order of steps
    this.grow(frame.stop || 0);
    for (const [at, token] of frame.drafts) this.drafts[at].push({ step, token });
    for (const [at, token, rule, confidence, margin, entropy] of frame.writes) {
      this.writes[at].push({ step, token, rule, confidence, margin, entropy });
    }
  }

  add(frame) { // live: a frame more
    this.data.frames.push(frame);
    for (const [, , rule] of frame.writes) {
      if (!this.data.rules.includes(rule)) this.data.rules.push(rule), this.explained = null;
    }
    this.data.facts.nfe = frame.nfe, this.data.facts.seconds = frame.seconds;
    this.take(frame, this.data.frames.length);
  }

  get last() { return this.data.frames.length; }

  word(token) {
    if (token === this.data.mask) return "░";
    if (this.data.eos.includes(token)) return "·";
    return this.data.vocabulary[token] ?? String(token);
  }

  written(at, step) { // the write that stands at a position after a step, or null
    const done = this.writes[at], count = after(done, step);
    const found = count ? done[count - 1] : null;
    return found && found.token !== this.data.mask ? found : null;
  }

  hue(write, colour) { // of a colouring, null for none
    if (colour === "rule") return HUES[this.data.rules.indexOf(write.rule) % HUES.length] ?? 210;
    if (colour === "step") return 20 + 200 * write.step / Math.max(this.last, 1);
    return write.confidence === null ? null : 20 + 200 * Math.max(0, Math.min(1, write.confidence));
  }

  show(now, colour) { // after the last step of its own a panel stays as it ended
    const step = Math.min(now, this.last);
    const frame = step ? this.data.frames[step - 1] : { lo: 0, hi: 0, nfe: 0, seconds: 0 };
    const stop = frame.stop ?? (step ? this.spans.length : this.data.length);
    for (let at = 0; at < this.spans.length; at++) this.paint(at, now, colour, frame, stop);
    const count = this.data.facts.tokens, end = step === this.last;
    const block = frame.hi > frame.lo ? ` · block ${frame.lo}–${frame.hi - 1}` : "";
    const fresh = frame.refreshes ? ` · cache refreshed ${Number(frame.refreshes.toFixed(2))}×` : "";
    this.facts.textContent = !this.last ? "" : `NFE ${frame.nfe} of ${this.data.facts.nfe} · `
      + `${frame.seconds.toFixed(2)} s of ${this.data.facts.seconds.toFixed(2)} s`
      + (end && count !== null ? ` · ${count} tokens` : "") + block + fresh;
    this.reject(frame.rejected || []);
    this.draw(step, colour);
    this.step = step;
  }

  paint(at, step, colour, frame, stop) {
    const write = this.written(at, step), span = this.spans[at];
    let text = "", style = "", hue = null;
    if (write) {
      text = this.word(write.token);
      hue = this.hue(write, colour);
      if (this.data.eos.includes(write.token)) style = "eos", hue = null;
      if (write.step === step) style += " fresh";
    } else if (this.data.given[at] !== undefined) {
      text = this.word(this.data.given[at]);
    } else if (at < stop) {
      text = "░", style = at >= frame.lo && at < frame.hi ? "mask block" : "mask";
    }
    if (at === this.chosen) style += " chosen";
    const state = `${text}\0${style}\0${hue}`;
    if (this.shown[at] === state) return; // most positions stay as they are
    this.shown[at] = state;
    span.textContent = text;
    span.className = style;
    span.style.backgroundColor = hue === null ? "" : `hsl(${hue} 70% var(--light))`;
  }

  reject(ids) {
    this.rejected.replaceChildren();
    if (ids.length) element(this.rejected, "span", `${ids.length} drafted tokens rejected: `);
    for (const id of ids.slice(0, 60)) element(this.rejected, "s", this.word(id));
  }

  draw(step, colour) { // the heat map: one pixel a position and a step, scaled up
    this.map.hidden = this.legend.hidden = !this.last;
    if (!this.last) return;
    const wide = this.spans.length, high = this.last;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const state = [colour, dark, wide, colour === "step" ? high : ""].join(); // its hues count to the last
    if (this.painted !== state) this.image = blank(wide, high), this.rows = 0;
    this.painted = state;
    this.fill(high, colour, dark);
    if (this.map.width !== this.map.clientWidth) this.map.width = this.map.clientWidth || wide;
    this.map.height = this.map.clientHeight || high;
    const pen = this.map.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.image, 0, 0, wide, high, 0, 0, this.map.width, this.map.height);
    pen.fillStyle = dark ? "#fff" : "#000";
    pen.fillRect(0, step * this.map.height / high - 1, this.map.width, 2);
    if (this.chosen >= 0) pen.fillRect(this.chosen * this.map.width / wide, 0, 1, this.map.height);
    this.explain(colour);
  }

  fill(high, colour, dark) { // the rows of the image that are not there yet
    const wide = this.spans.length, from = this.rows;
    if (from === high) return;
    if (this.image.height < high) this.image = blank(wide, 2 * high, this.image);
    const pen = this.image.getContext("2d"), data = pen.createImageData(wide, high - from);
    const solid = ramp(dark ? 0.5 : 0.6), soft = ramp(dark ? 0.22 : 0.88);
    for (let step = from + 1; step <= high; step++) {
      for (let at = 0; at < wide; at++) {
        const write = this.written(at, step);
        const hue = write ? this.hue(write, colour) : this.doubt(step, at);
        if (hue === null && !write) continue;
        const rgb = hue === null ? [128, 128, 128] : (write ? solid : soft)[Math.round(hue)];
        data.data.set([...rgb, 255], 4 * ((step - from - 1) * wide + at));
      }
    }
    pen.putImageData(data, 0, from);
    this.rows = high;
  }

  sure(step, at) { // of the proposal at a step, undefined where none was made
    return LEVEL.get((this.data.frames[step - 1]?.confidence || "")[at]);
  }

  doubt(step, at) {
    const sure = this.sure(step, at);
    return sure === undefined ? null : 20 + 200 * sure;
  }

  explain(colour) {
    if (this.explained === colour) return;
    this.explained = colour;
    this.legend.replaceChildren();
    const ends = { confidence: ["0", "1"], step: ["first", "last"] }[colour];
    const names = ends ? [[ends[0], 20], [ends[1], 220]]
      : this.data.rules.map((rule, index) => [rule, HUES[index % HUES.length]]);
    for (const [name, hue] of names) {
      const entry = element(this.legend, "span"), swatch = element(entry, "i");
      swatch.style.backgroundColor = `hsl(${hue} 70% 55%)`;
      entry.append(name);
    }
    element(this.legend, "span", "map: position across, step down; pale is a proposal not yet written");
  }
}

function blank(wide, high, before) { // an image, with what an earlier one had
  const image = document.createElement("canvas");
  image.width = wide, image.height = high;
  if (before) image.getContext("2d").drawImage(before, 0, 0);
  return image;
}

function ramp(light) { // rgb of the hues 0 to 360
  return Array.from({ length: 361 }, (_, hue) => [0, 8, 4].map(n => {
    const k = (n + hue / 30) % 12, a = 0.7 * Math.min(light, 1 - light);
    return Math.round(255 * (light - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  }));
}
