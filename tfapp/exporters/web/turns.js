// One thing after another: what uses the model never meets what measures, checks or exchanges it.

let last = Promise.resolve();

/** Does something when all that was handed in before has ended, well or not; promises what it gives. */
export function inTurn(work) {
  const done = last.then(work);
  last = done.catch(() => {});
  return done;
}
