"""The page in the browser: models, runs and detectors at hand, looked at and played with. Plain functions, a server, a page.

`shelf` holds what is shown, `landscape`, `draw`, `mend`, `judge` and `watch` are the panels: functions of what is on the shelf and of what
was asked, which give what JSON can hold. `server` hands them to the page in `page/`.
"""
