document.querySelectorAll("table.sortable").forEach(function (table) {
  var body = table.tBodies[0];
  var heads = table.querySelectorAll("thead th");
  heads.forEach(function (head, column) {
    // Chromium leaves real buttons out where a printed page repeats the head.
    var button = document.createElement("span");
    button.setAttribute("role", "button");
    button.tabIndex = 0;
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("keydown", function (event) {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        button.click();
      }
    });
    button.addEventListener("click", function () {
      var sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      var rows = Array.from(body.rows, function (row) {
        var cell = row.cells[column];
        return { row: row, text: cell.textContent, value: cell.dataset.v };
      });
      rows.sort(function (a, b) {
        return sign * (a.value ? a.value - b.value : a.text.localeCompare(b.text));
      });
      rows.forEach(function (entry) { body.appendChild(entry.row); });
      heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    });
  });
});
