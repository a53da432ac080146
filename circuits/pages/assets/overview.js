// The drawing of a large circuit: its components stand still in one drawing, its lines in two beneath. The lines that rest are a
// few paths, one for each look; they fade as a whole, and only what is lit is drawn anew. So 2,000 edges cost no more than 20.
"use strict";
const overview = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const PENS = [0.5, 0.8, 1.3, 2, 3, 4.2];
  const OPENED = 34;

  /** What `kit.parts` is for a small circuit. `data.map`: rows, the left and right of the heads, the width of an opened head. */
  function overview(map, nodes, edges, { width, rows, left, right, wide }) {
    const [resting, lit] = map.querySelectorAll("svg.wires"), svg = map.querySelector("svg.components");
    const groups = [...svg.querySelectorAll(".node")], layers = [...svg.querySelectorAll(".layer")], openers = [...svg.querySelectorAll(".opener")];
    const base = groups.map((group) => group.getAttribute("transform").match(/-?[\d.]+/g).map(Number));
    const height = Number(map.dataset.height);
    const open = new Set();
    let at = base, extra = 0;

    const top = Math.max(...edges.map((edge) => Math.abs(edge.score ?? 0)), 1e-12);
    const pen = (edge) => Math.min(PENS.length - 1, Math.floor(PENS.length * Math.sqrt(Math.abs(edge.score ?? 0) / top)));

    /** The curve, its ends moved along with the boxes that they touch. */
    function path(edge) {
      const c = edge.curve, [ax, ay] = shift(edge.from, -1), [bx, by] = shift(edge.to, 1);
      return `M${c[0] + ax} ${c[1] + ay}C${c[2] + ax} ${c[3] + ay} ${c[4] + bx} ${c[5] + by} ${c[6] + bx} ${c[7] + by}`;
    }
    /** How far a component has moved; in an opened layer its box is taller, and its edge `side` is that much farther out. */
    function shift(i, side) {
      const grown = nodes[i].head && open.has(nodes[i].layer) ? side * 13 : 0;
      return [at[i][0] - base[i][0], at[i][1] - base[i][1] + grown];
    }

    /** One path for all edges of one look. */
    function draw(into, drawn) {
      const looks = new Map();
      for (const edge of drawn) {
        const key = `${edge.slot || "whole"}${edge.score < 0 ? " negative" : ""}|${pen(edge)}`;
        looks.set(key, (looks.get(key) ?? "") + path(edge));
      }
      into.replaceChildren(...[...looks].sort((a, b) => a[0].at(-1) - b[0].at(-1)).map(([key, d]) => {
        const line = document.createElementNS(NS, "path"), [look, width] = key.split("|");
        line.setAttribute("class", `wire ${look}`);
        line.setAttribute("stroke-width", PENS[width]);
        line.setAttribute("d", d);
        return line;
      }));
    }

    /** y of what stands at y while no layer is open: an opened one pushes what is above it up, so the map grows at its top. */
    const opensBelow = (layer) => [...open].filter((other) => other < layer).length;
    function place() {
      extra = OPENED * open.size;
      at = base.map(([x, y], i) => {
        const { layer, head } = nodes[i], isOpen = open.has(layer);
        const lifted = OPENED * (opensBelow(layer) + (isOpen ? (head ? 0.5 : 1) : 0));
        return [x, y + extra - lifted];
      });
      for (const layer of open) {
        const own = nodes.flatMap((node, i) => (node.layer === layer && node.head ? [i] : [])).sort((a, b) => base[a][0] - base[b][0]);
        const gap = Math.min((right - left) / Math.max(own.length, 1), wide + 14), start = (left + right - gap * own.length) / 2;
        own.forEach((i, k) => { at[i] = [start + gap * (k + 0.5), at[i][1]]; });
      }
      groups.forEach((group, i) => {
        group.setAttribute("transform", `translate(${at[i].join(" ")})`);
        group.classList.toggle("open", Boolean(nodes[i].head) && open.has(nodes[i].layer));
      });
      layers.forEach((group) => {
        const layer = Number(group.dataset.layer), isOpen = open.has(layer);
        const y = rows[layer] + extra - OPENED * (opensBelow(layer) + (isOpen ? 0.5 : 0));
        group.setAttribute("transform", `translate(0 ${y})`);
        const band = group.querySelector("rect"), tall = 26 + (isOpen ? OPENED : 0);
        band.setAttribute("y", -tall / 2);
        band.setAttribute("height", tall);
        group.querySelector(".sign").textContent = isOpen ? "−" : "+";
        group.querySelector(".opener").setAttribute("aria-expanded", isOpen);
      });
      for (const each of [resting, lit, svg]) each.setAttribute("viewBox", `0 0 ${width} ${height + extra}`);
      map.dataset.height = height + extra;
      show();
    }

    let shown = edges, pending = 0;
    const now = () => { pending = 0; draw(resting, shown); };
    function show(list) {
      if (list) shown = list;
      pending ||= requestAnimationFrame(now);
    }

    /** Light some edges and nodes, draw others faintly or boldly, and fade the rest; with no nodes, nothing is faded. */
    function light(litEdges, litNodes, faint = [], bold = []) {
      map.classList.toggle("focusing", litNodes.length > 0);
      const set = new Set(litNodes);
      groups.forEach((group, i) => group.classList.toggle("lit", set.has(i)));
      const layer = (list, look) => {
        const group = document.createElementNS(NS, "g");
        group.setAttribute("class", look);
        draw(group, list);
        return group;
      };
      lit.replaceChildren(layer(faint, "faint"), layer(litEdges, ""), layer(bold, "bold"));
    }

    /** The drawn edge that passes within a few pixels of the pointer. */
    function edgeAt(event, among) {
      const box = svg.getBoundingClientRect(), scale = box.width / width;
      const x = (event.clientX - box.left) / scale, y = (event.clientY - box.top) / scale;
      let best = null, nearest = 5 / scale;
      for (const edge of among ?? shown) {
        const c = edge.curve, [ax, ay] = shift(edge.from, -1), [bx, by] = shift(edge.to, 1);
        const y0 = c[1] + ay, y3 = c[7] + by;
        if (y > y0 + 8 || y < y3 - 8) continue;
        for (let k = 1; k < 16; k += 1) {
          const t = k / 16, s = 1 - t, a = s * s * s, b = 3 * s * s * t, d = 3 * s * t * t, e = t * t * t;
          const px = a * (c[0] + ax) + b * (c[2] + ax) + d * (c[4] + bx) + e * (c[6] + bx);
          const py = a * y0 + b * (c[3] + ay) + d * (c[5] + by) + e * y3;
          const reach = Math.abs(px - x) + Math.abs(py - y) / 4;
          if (reach < nearest) { nearest = reach; best = edge; }
        }
      }
      return best;
    }

    /** Layers and lanes answer to a click, to Enter, and to the arrow keys among themselves. */
    function buttons(list, keys, name, act) {
      list.forEach((group, i) => {
        group.setAttribute("role", "button");
        group.setAttribute("tabindex", i ? -1 : 0);
        group.setAttribute("aria-label", name(i));
        group.addEventListener("click", (event) => { event.stopPropagation(); act(i); });
        group.addEventListener("keydown", (event) => {
          if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(i); }
          const to = list[i + (keys.indexOf(event.key) === 0 ? -1 : keys.indexOf(event.key) === 1 ? 1 : NaN)];
          if (!to) return;
          event.preventDefault();
          list.forEach((other) => other.setAttribute("tabindex", other === to ? 0 : -1));
          to.focus();
        });
      });
    }
    function toggle(layer) {
      if (!open.delete(layer)) open.add(layer);
      place();
    }

    return { svg, box: map, groups, show, light, edgeAt, buttons, toggle, layers: openers, lanes: [...svg.querySelectorAll(".lane")],
      place: (i) => at[i], isOpen: (layer) => open.has(layer) };
  }
  return overview;
})();
