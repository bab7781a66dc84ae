"""The console: what a person sees of the platform, in a browser.

Pages ask the doors of `Platform` and nothing else. A page is HTML made by pure functions (`parts`, `pages/*`), sent
once; afterwards only what changed is pushed (`screen`), and charts are appended to, never sent again. Whatever may
block runs in a thread. Nothing is loaded from another host.
"""
