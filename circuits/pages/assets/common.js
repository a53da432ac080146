// What the page of a run and the page of a diff share. Values are in #data; drawings hold edges and nodes in data's order.
"use strict";
const kit = (() => {
  const $ = (id) => document.getElementById(id);
  const live = $("live");

  /** An element with attributes and children; strings become text, never markup. */
  function el(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value !== null) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  const number = (value) => (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : value.toPrecision(3));
  const signed = (value) => (value === null ? "not scored" : (value < 0 ? "−" : "+") + number(Math.abs(value)));
  const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const say = (text) => { live.textContent = text; };

  /** Edges get their index and name; what comes back is, for each node, the edges into it and out of it. */
  function wire(nodes, edges) {
    const into = nodes.map(() => []), out = nodes.map(() => []);
    edges.forEach((edge, i) => {
      edge.index = i;
      edge.shown = true;
      edge.name = `${nodes[edge.from].name}->${nodes[edge.to].name}${edge.slot ? `<${edge.slot}>` : ""}`;
      into[edge.to].push(edge);
      out[edge.from].push(edge);
    });
    return { into, out, near: nodes.map((_, i) => [...into[i], ...out[i]]) };
  }

  /** The drawing's own parts, in the order of the data. */
  const parts = (svg) => ({ svg, paths: [...svg.querySelectorAll(".edge")], groups: [...svg.querySelectorAll(".node")] });

  /** Light up some edges and nodes of a drawing, and fade the rest; with none, nothing is faded. */
  function light({ svg, paths, groups }, litEdges, litNodes) {
    for (const old of svg.querySelectorAll(".lit")) old.classList.remove("lit");
    svg.classList.toggle("focusing", litNodes.length > 0);
    for (const edge of litEdges) paths[edge.index].classList.add("lit");
    for (const i of litNodes) groups[i].classList.add("lit");
  }

  /** One tab stop for a list; the arrow keys move inside it. */
  function roving(list) {
    const buttons = () => [...list.querySelectorAll("li:not(.off) button")];
    buttons().forEach((button, i) => button.setAttribute("tabindex", i ? -1 : 0));
    list.addEventListener("keydown", (event) => {
      const all = buttons(), at = all.indexOf(document.activeElement);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined || !all[to]) return;
      event.preventDefault();
      all.forEach((button, i) => button.setAttribute("tabindex", i === to ? 0 : -1));
      all[to].focus();
    });
    return list;
  }

  /** The drawing's components by keyboard: one tab stop, the arrow keys move along a row and between rows, Enter chooses.
   *  What comes back puts the tab stop on the first component that is seen. */
  function walkable({ groups, place }, name, choose) {
    const fixed = groups.map((group) => group.getAttribute("transform").match(/-?[\d.]+/g).map(Number));
    /** An overview's components move where a layer opens, and stand too close for rows: the nearest in the direction is next. */
    const near = place !== undefined;
    const seen = (i) => getComputedStyle(groups[i]).display !== "none";
    const stop = (i) => groups.forEach((group, j) => group.setAttribute("tabindex", j === i ? 0 : -1));
    function next(i, key) {
      const at = near ? groups.map((_, j) => place(j)) : fixed, [x, y] = at[i];
      const along = key === "ArrowLeft" || key === "ArrowRight", sign = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
      const ahead = groups.map((_, j) => j).filter((j) => j !== i && seen(j) &&
        (along ? Math.abs(at[j][1] - y) <= (near ? 14 : 0) && sign * (at[j][0] - x) > 0 : sign * (at[j][1] - y) > 0));
      // The next row first, then the nearest in it; on an overview, straight ahead first.
      const cost = (j) => (near && !along ? 1 : 1e4) * Math.abs(at[j][1] - y) + (near ? 3 : 1) * Math.abs(at[j][0] - x);
      return ahead.sort((a, b) => cost(a) - cost(b))[0];
    }
    groups.forEach((group, i) => {
      group.setAttribute("role", "button");
      group.setAttribute("aria-label", name(i));
      group.addEventListener("focus", () => stop(i));
      group.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(i); }
        if (!event.key.startsWith("Arrow")) return;
        event.preventDefault();
        const to = next(i, event.key);
        if (to !== undefined) groups[to].focus();
      });
    });
    return () => stop(groups.findIndex((_, i) => seen(i)));
  }

  /** Zoom by the buttons, by + - 0 on a drawing in focus, or by the wheel with Ctrl; move by dragging. Drawings move together. */
  function zoomable(svgs) {
    const canvases = svgs.map((svg) => svg.closest(".canvas"));
    const natural = svgs[0].viewBox?.baseVal.width ?? Number(svgs[0].dataset.width);
    /** A drawing that says its height is made to fit the screen in height, too. */
    const fitting = ({ dataset }) => (dataset.height ? Math.min(1.25, Math.max(0.6, (0.92 * innerHeight) / dataset.height)) : 1.25);
    const scale = () => (svgs.find((svg) => svg.getClientRects().length) || svgs[0]).getBoundingClientRect().width / natural;
    function zoom(value) {
      for (const svg of svgs) {
        svg.style.width = value ? `${natural * value}px` : "100%";
        svg.style.maxWidth = value ? "none" : `${natural * fitting(svg)}px`;
        svg.style.minWidth = value ? "0" : "";
      }
    }
    const larger = () => zoom(Math.min(scale() * 1.25, 6)), smaller = () => zoom(Math.max(scale() / 1.25, 0.2)), fit = () => zoom(0);
    $("zoom-in").addEventListener("click", larger);
    $("zoom-out").addEventListener("click", smaller);
    $("zoom-fit").addEventListener("click", fit);
    for (const canvas of canvases) {
      canvas.addEventListener("keydown", (event) => {
        const act = { "+": larger, "=": larger, "-": smaller, 0: fit }[event.key];
        if (act && !event.ctrlKey && !event.metaKey) { event.preventDefault(); act(); }
      });
      canvas.addEventListener("wheel", (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault();
        const box = canvas.getBoundingClientRect(), before = scale();
        const x = event.clientX - box.left, y = event.clientY - box.top;
        zoom(Math.min(6, Math.max(0.2, before * Math.exp(-event.deltaY / 400))));
        const by = scale() / before;
        canvas.scrollLeft = (canvas.scrollLeft + x) * by - x;
        canvas.scrollTop = (canvas.scrollTop + y) * by - y;
      }, { passive: false });
      let held = null, dragged = false;
      canvas.addEventListener("pointerdown", (event) => {
        if (event.pointerType === "mouse" && event.button === 0 && !event.target.closest(".node")) held = event;
        dragged = false;
      });
      addEventListener("pointerup", () => { held = null; });
      canvas.addEventListener("pointermove", (event) => {
        if (!held) return;
        canvas.scrollLeft -= event.clientX - held.clientX;
        canvas.scrollTop -= event.clientY - held.clientY;
        dragged ||= event.movementX !== 0 || event.movementY !== 0;
        held = event;
      });
      // The click that ends a drag chooses nothing.
      canvas.addEventListener("click", (event) => { if (dragged) event.stopPropagation(); }, true);
      canvas.addEventListener("scroll", () => {
        for (const other of canvases) {
          if (other === canvas) continue;
          other.scrollLeft = canvas.scrollLeft;
          other.scrollTop = canvas.scrollTop;
        }
      });
    }
    fit();
  }

  /** Scroll the drawing, and nothing else, so far that the component can be seen. */
  function reveal(group) {
    const canvas = group.closest(".canvas"), box = canvas.getBoundingClientRect(), at = group.getBoundingClientRect();
    if (!at.width) return;
    if (at.top < box.top || at.bottom > box.bottom) canvas.scrollTop += at.top - box.top - box.height / 2;
    if (at.left < box.left || at.right > box.right) canvas.scrollLeft += at.left - box.left - box.width / 2;
  }

  /** The search field: components whose name, role or words hold what is typed are lit; Enter, or an exact name, chooses. */
  function findable(words, names, mark, choose) {
    const field = $("find"), out = $("find-out");
    const hits = (wanted) => words.flatMap((text, i) => (text.toLowerCase().includes(wanted) ? [i] : []));
    field.addEventListener("input", () => {
      const wanted = field.value.trim().toLowerCase();
      const found = wanted ? hits(wanted) : [];
      const exact = names.findIndex((own) => own.some((name) => name.toLowerCase() === wanted));
      out.textContent = wanted ? `${found.length} found` : "";
      choose(exact < 0 ? null : exact);
      if (exact < 0) mark(found);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      const [first] = hits(field.value.trim().toLowerCase());
      if (first !== undefined && field.value.trim()) choose(first);
    });
  }

  function copyable() {
    const button = $("copy"), command = $("command");
    if (!button) return;
    button.addEventListener("click", async () => {
      getSelection().selectAllChildren(command);
      try {
        await navigator.clipboard.writeText(command.textContent);
        button.textContent = "Copied";
        say("Copied");
      } catch {
        say("The command is selected; copy it with your keyboard.");
      }
    });
  }

  // ---- addresses and pictures ----------------------------------------------------------------------------------------

  /** A component has an address: `#L4H5`, or `#a4.h5`. Opening it chooses the component, and choosing one puts its name there. */
  function addressed(names) {
    const found = () => {
      let wanted = "";
      try { wanted = decodeURIComponent(location.hash.slice(1)).toLowerCase(); } catch { /* No name of a component is so written. */ }
      return names.findIndex((own) => own.some((name) => name.toLowerCase() === wanted));
    };
    return {
      put: (i) => history.replaceState(null, "", i === null ? location.href.split("#")[0] : `#${names[i][0]}`),
      follow(choose) {
        const open = () => {
          const i = found();
          if (i < 0) return;
          choose(i);
          $("circuit-heading").scrollIntoView();
        };
        addEventListener("hashchange", open);
        open();
      },
    };
  }

  const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap",
    "opacity", "font", "text-anchor"];

  /** What is seen of a drawing as one SVG that needs no style sheet. `columns` stand side by side, each of drawings that lie on each other. */
  function still(columns) {
    const svg = (name, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      return element;
    };
    const copies = [];
    let across = 0, tall = 0;
    for (const stack of columns) {
      const { width, height } = stack[0].viewBox.baseVal;
      for (const drawing of stack) {
        const copy = drawing.cloneNode(true), own = drawing.querySelectorAll("*");
        const hidden = [];
        copy.querySelectorAll("*").forEach((element, i) => {
          const style = getComputedStyle(own[i]);
          if (style.display === "none") hidden.push(element);
          for (const name of element.getAttributeNames()) if (/^(class|role|tabindex|aria-|data-)/.test(name)) element.removeAttribute(name);
          element.setAttribute("style", STYLES.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
        });
        hidden.forEach((element) => element.remove());
        const part = svg("svg", { x: across, y: 0, width, height, viewBox: `0 0 ${width} ${height}` });
        part.append(...copy.childNodes);
        copies.push(part);
      }
      across += width;
      tall = Math.max(tall, height);
    }
    const whole = svg("svg", { width: across, height: tall, viewBox: `0 0 ${across} ${tall}` });
    whole.append(svg("rect", { width: across, height: tall, fill: colour("--card") }), ...copies);
    return { text: new XMLSerializer().serializeToString(whole), width: across, height: tall };
  }

  /** The buttons that save what is seen as a picture, named after the page. */
  function savable(columns) {
    const title = document.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "") || "circuit";
    const save = (blob, ending) => {
      const link = el("a", { href: URL.createObjectURL(blob), download: `${title}.${ending}` });
      link.click();
      URL.revokeObjectURL(link.href);
      say(`Saved as ${ending.toUpperCase()}`);
    };
    $("save-svg").addEventListener("click", () => save(new Blob([still(columns()).text], { type: "image/svg+xml" }), "svg"));
    $("save-png").addEventListener("click", async () => {
      const { text, width, height } = still(columns()), image = new Image();
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
      await image.decode();
      const canvas = el("canvas", { width: 2 * width, height: 2 * height });
      canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
      canvas.toBlob((blob) => save(blob, "png"), "image/png");
    });
  }

  // ---- plots: plotly.js comes packed, and runs from memory -----------------------------------------------------------

  /** The text packed in the page: base64 of a zlib stream. */
  async function unpack(id) {
    const packed = atob($(id).textContent);
    const bytes = Uint8Array.from(packed, (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  function draw(figures) {
    for (const [name, figure] of Object.entries(figures)) {
      const { data: traces, layout } = structuredClone(figure);
      layout.font = { ...layout.font, color: colour("--soft") };
      for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) layout[axis].gridcolor = colour("--line");
      for (const shape of layout.shapes || []) shape.line.color = colour("--v");
      for (const note of layout.annotations || []) note.font = { ...note.font, color: colour("--v") };
      layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") };
      layout.hoverlabel = { bgcolor: colour("--ink"), bordercolor: colour("--ink"), font: { color: colour("--page") } };
      window.Plotly.react($(`plot-${name}`), traces, layout, {
        responsive: true, displaylogo: false, plotlyServerURL: "", scrollZoom: false,
        modeBarButtons: [["toImage", "resetScale2d"]],
      });
    }
  }

  /** Draw the figures, each in its place `plot-NAME`; `instead` fills the places in a browser too old to unpack plotly.js. */
  async function plots(figures, instead) {
    const places = Object.keys(figures).map((name) => $(`plot-${name}`));
    for (const place of places) { place.classList.add("waiting"); place.textContent = "Drawing…"; }
    const clear = () => places.forEach((place) => { place.classList.remove("waiting"); place.replaceChildren(); });
    try {
      const script = el("script");
      script.textContent = await unpack("plotly-packed");
      document.body.append(script);
      script.remove();
      clear();
      draw(figures);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(figures));
    } catch (error) {
      console.warn("no plots:", error);
      clear();
      places.forEach((place) => { place.textContent = place.getAttribute("aria-label"); place.removeAttribute("role"); });
      instead();
    }
  }

  return { $, el, number, signed, count, say, wire, parts, light, roving, walkable, zoomable, reveal, findable, copyable, addressed, still, savable, plots };
})();
