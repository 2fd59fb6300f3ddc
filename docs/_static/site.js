// Boxes that scroll sideways can be reached by keyboard; formulas and tables among them.
addEventListener('load', () => {
  const mark = () => document.querySelectorAll('.content pre, .content .table-wrapper, .content div.math, .content .output').forEach(o => {
    if (o.scrollWidth > o.clientWidth + 1) Object.assign(o, {tabIndex: 0, role: 'region', ariaLabel: 'Scrolls sideways'});
  });
  mark(); addEventListener('resize', mark); window.MathJax?.startup?.promise?.then(mark);
});
