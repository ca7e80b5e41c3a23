var claims = Array.prototype.slice.call(document.querySelectorAll("details.claim"));
document.getElementById("expand").addEventListener("click", function () {
  var open = claims.some(function (c) { return !c.open; });
  claims.forEach(function (c) { c.open = open; });
  this.textContent = open ? "close all" : "open all";
});
document.getElementById("filter").addEventListener("input", function () {
  var words = this.value.toLowerCase().split(/\s+/).filter(Boolean);
  claims.forEach(function (c) {
    var text = c.textContent.toLowerCase();
    c.hidden = !words.every(function (w) { return text.indexOf(w) >= 0; });
  });
});
