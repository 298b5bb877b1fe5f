(function () {
  "use strict";
  var holder = document.getElementById("pair-values");
  var svg = document.getElementById("matrix");
  if (!holder || !svg) { return; }
  var data = JSON.parse(holder.textContent);
  var out = document.getElementById("readout");
  var mark = document.getElementById("mark");
  var area = document.getElementById("cells");
  var count = data.ids.length;
  var cell = Number(svg.dataset.cell);
  var row = 0, column = 0;

  function text(name, digits) {
    var table = data.values[name];
    var value = table ? table[row][column] : null;
    return value === null ? null : value.toFixed(digits);
  }
  function part(words, value) {
    return value === null ? "" : words + " " + value;
  }
  function show() {
    mark.setAttribute("x", column * cell);
    mark.setAttribute("y", row * cell);
    mark.removeAttribute("visibility");
    var parts = [];
    var sigma = text("distance_sigma", 3);
    parts.push(part("similarity", text("similarity", 3)) + (sigma === null ? "" : " ± " + sigma));
    parts.push(part("plain correlation", text("correlation", 3)));
    if (row !== column) {
      var turn = text("rotation_degrees", 1);
      if (turn !== null) {
        parts.push("turned by " + turn + "°, shifted by " + text("shift_angstrom", 1) + " Å");
        if (text("mirrored", 0) === "1") { parts.push("opposite hand"); }
      }
      var sure = text("confidence", 1);
      parts.push(sure === null ? "" : "confidence of the pose " + sure + " σ");
    }
    out.textContent = "";
    var head = document.createElement("b");
    head.textContent = "Class " + data.ids[column] + " onto class " + data.ids[row];
    out.appendChild(head);
    var where = data.superclass[row] === data.superclass[column]
      ? "both in superclass " + data.superclass[row]
      : "superclasses " + data.superclass[column] + " and " + data.superclass[row];
    parts.unshift(where);
    parts.filter(Boolean).forEach(function (words) {
      var line = document.createElement("span");
      line.textContent = words;
      out.appendChild(line);
    });
  }
  function move(event) {
    var box = area.getBoundingClientRect();
    column = Math.min(count - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * count)));
    row = Math.min(count - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * count)));
    show();
  }
  area.addEventListener("pointermove", move);
  area.addEventListener("pointerdown", move);
  svg.addEventListener("focus", show);
  svg.addEventListener("keydown", function (event) {
    var step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) { return; }
    event.preventDefault();
    row = Math.min(count - 1, Math.max(0, row + step[0]));
    column = Math.min(count - 1, Math.max(0, column + step[1]));
    show();
  });
})();
