// A picture that is wider than its box is moved sideways in it, by keyboard too.
addEventListener("load", () => {
  for (const box of document.querySelectorAll("div.cell_output, table")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
