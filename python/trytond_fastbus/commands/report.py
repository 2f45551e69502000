"""The findings of a check, a line for each."""
import json

OK, WARNING, FAILED = 'ok', 'warning', 'failed'


class Report:
    "Prints each finding at once, or all of them as one JSON object"

    def __init__(self, is_json=False):
        self._is_json = is_json
        self._findings = []

    def ok(self, thing, text, **values):
        self._add(OK, thing, text, values)

    def warning(self, thing, text, **values):
        self._add(WARNING, thing, text, values)

    def failed(self, thing, text, **values):
        self._add(FAILED, thing, text, values)

    def _add(self, status, thing, text, values):
        self._findings.append(
            {'thing': thing, 'status': status, 'text': text, **values})
        if not self._is_json:
            print('%-8s %s: %s' % (status, thing, text), flush=True)

    def end(self):
        "Print the rest, and return the exit status"
        found = {finding['status'] for finding in self._findings}
        worst = next(
            status for status in [FAILED, WARNING, OK]
            if status in found or status == OK)
        if self._is_json:
            print(json.dumps(
                    {'status': worst, 'findings': self._findings},
                    ensure_ascii=False))
        return 1 if worst == FAILED else 0
