#!/usr/bin/env python3
"""Hands a training's events to MLflow: train ... --json | mlflow.py URL [EXPERIMENT]

URL is that of an MLflow tracking server, such as http://127.0.0.1:5000. Every category becomes a run of EXPERIMENT (default
rdpp), with its settings as parameters, the losses of its epochs and the metrics of its test images. Events go on to standard
output. Needs Python 3.7 and no packages. A server that does not answer is said once, and training goes on.
"""
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

SCHEMA = 1  # of the events that this program knows, see ../EVENTS.md


class Server:
    def __init__(self, url):
        self.url = url.rstrip("/") + "/api/2.0/mlflow/"

    def call(self, method, path, **fields):
        url, body = self.url + path, None
        if method == "GET":
            url += "?" + urllib.parse.urlencode(fields)
        else:
            body = json.dumps(fields).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def experiment(self, name):
        try:
            return self.call("GET", "experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        return self.call("POST", "experiments/create", name=name)["experiment_id"]


def milliseconds():
    return int(time.time() * 1000)


def numbers(metrics):
    """The members of an object that are numbers."""
    return {k: v for k, v in metrics.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


class Runs:
    def __init__(self, server, experiment):
        self.server, self.experiment, self.ids = server, server.experiment(experiment), {}

    def log(self, category, step, values, params=()):
        now = milliseconds()
        metrics = [{"key": k, "value": v, "timestamp": now, "step": step} for k, v in values.items()]
        self.server.call("POST", "runs/log-batch", run_id=self.ids[category], metrics=metrics, params=list(params))

    def end(self, category, status):
        self.server.call("POST", "runs/update", run_id=self.ids.pop(category), status=status, end_time=milliseconds())

    def take(self, event):
        category, name = event["category"], event["event"]
        if name == "start":
            run = self.server.call("POST", "runs/create", experiment_id=self.experiment, run_name=category, start_time=milliseconds())
            self.ids[category] = run["run"]["info"]["run_id"]
            settings = dict(event["config"], teacher=event["teacher"]["origin"], images=event["data"]["images"])
            # MLflow takes a hundred parameters at a time, of 500 characters each in its older versions.
            params = [{"key": k, "value": str(v)[:500]} for k, v in settings.items()]
            for at in range(0, len(params), 100):
                self.log(category, 0, {}, params[at : at + 100])
        elif name == "epoch":
            report = event["report"]
            values = {"loss_" + k: v for k, v in numbers(report["losses"]).items()}
            values["images_per_second"] = report["images"] / max(report["seconds"], 1e-9)
            values.update(numbers(report.get("metrics") or {}))
            self.log(category, report["epoch"], values)
        elif name == "done" and category in self.ids:
            self.log(category, event["summary"]["epoch"], {"final_" + k: v for k, v in numbers(event["summary"]).items()})
            self.end(category, "FINISHED")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__.strip())
    runs, failure = None, None
    for line in sys.stdin:
        sys.stdout.write(line)
        sys.stdout.flush()
        if failure:
            continue
        try:
            event = json.loads(line)
            if event["schema"] != SCHEMA:
                raise ValueError("events of schema %s, this program knows %d" % (event["schema"], SCHEMA))
            runs = runs or Runs(Server(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else "rdpp")
            runs.take(event)
        except (OSError, ValueError, KeyError) as error:
            failure = error
            print("mlflow.py: nothing more is handed over: %r" % error, file=sys.stderr)
    if runs and not failure:
        for category in list(runs.ids):  # the training has ended without their last event
            runs.end(category, "FAILED")
    sys.exit(1 if failure else 0)


if __name__ == "__main__":
    main()
