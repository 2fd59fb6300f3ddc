// Boxes that scroll sideways can be reached by keyboard; formulas and tables among them.
addEventListener('load', () => {
  const boxes = '.content :is(pre, .table-wrapper, div.math, .output)';
  const mark = () => document.querySelectorAll(boxes).forEach(o => {
    if (o.scrollWidth > o.clientWidth + 1)
      Object.assign(o, {tabIndex: 0, role: 'region', ariaLabel: 'Scrolls sideways'});
  });
  mark(); addEventListener('resize', mark); window.MathJax?.startup?.promise?.then(mark);
});
