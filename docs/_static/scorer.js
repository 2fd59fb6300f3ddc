// How search ranks: a name of the library, the page that treats a word, its entry in the glossary.
var Scorer = {
  score: ([doc, title, anchor, descr, score]) => doc == 'glossary' && score > 20 ? score/2 : score,
  objNameMatch: 90, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
