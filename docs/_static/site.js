// Boxes that scroll sideways can be reached by keyboard; formulas and tables among them.
addEventListener('load', () => {
  const mark = () => document.querySelectorAll('.content pre, .content .table-wrapper, .content div.math, .content .output').forEach(o => {
    if (o.scrollWidth > o.clientWidth + 1) { o.tabIndex = 0; if (!o.hasAttribute('role')) { o.setAttribute('role', 'region'); o.setAttribute('aria-label', 'Scrolls sideways') } }
  });
  mark(); addEventListener('resize', mark);
  if (window.MathJax && MathJax.startup && MathJax.startup.promise) MathJax.startup.promise.then(mark);
});
