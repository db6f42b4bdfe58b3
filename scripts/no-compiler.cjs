/** Preloaded first: keeps the test runner's own loader, which brings the whole compiler, from loading. */
process.env.TAP_TYPE_STRIP_ONLY = '1';
