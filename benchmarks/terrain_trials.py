# Copyright 2026 lunar_perception contributors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Gather what finished terrain runs reached into one record.

    python -m benchmarks.terrain_trials RUN [RUN …] --data DATA --output RECORD.json

`adjusted` are the last run's figures with that much of the log of the classes' shares in its
training crops added to its logits, as `logit_adjustment` does.
"""

from argparse import ArgumentParser
import json
from pathlib import Path

from benchmarks.record import write_record
from lunar_perception.classification import ClassificationScore
from lunar_perception.data.hirise import read_crops
import numpy as np

KEPT = ('network', 'backbone', 'initial', 'generated', 'size', 'steps', 'minutes')


def trial(run: Path) -> dict[str, object]:
    """Return a run's settings that differ between trials, its length and held-out figures."""
    config = json.loads((run / 'config.json').read_text())
    metrics = json.loads((run / 'metrics.json').read_text())
    last = json.loads((run / 'log.jsonl').read_text().splitlines()[-1])
    initial = config.get('initial')
    return {
        **{key: config.get(key) for key in KEPT},
        'initial': Path(initial).parent.name if initial else None,
        'crops_seen': last['step'] * config['data']['batch_size'],
        'steps_done': last['step'],
        'held_out': metrics['held_out'],
        'accuracy': metrics['accuracy'],
        'macro_f1': metrics['macro']['f1'],
        'f1': {name: figures['f1'] for name, figures in metrics['classes'].items()},
    }


def adjusted(run: Path, data: Path, amount: float) -> dict[str, object]:
    """Return the figures of a run's held-out crops with its logits adjusted."""
    rows = json.loads((run / 'predictions.json').read_text())
    temperature = json.loads((run / 'metrics.json').read_text())['temperature']
    held_out = {row['name'] for row in rows}
    labels = [crop.label for crop in read_crops(data) if crop.path.name not in held_out]
    count = np.maximum(np.bincount(labels, minlength=len(rows[0]['probability'])), 1)
    # What softmax has taken from the logits is the same for every class.
    logits = temperature * np.log(np.array([row['probability'] for row in rows]) + 1e-9)
    predicted = (logits + amount * np.log(count / count.sum())).argmax(axis=1)
    score = ClassificationScore()
    score.update(np.array([row['truth'] for row in rows]), predicted)
    return {'run': run.name, 'amount': amount, **score.to_dict()}


def main() -> None:
    """Write the record."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('runs', type=Path, nargs='+', metavar='RUN')
    parser.add_argument('--data', type=Path, required=True, help='folder of the crops')
    parser.add_argument('--adjust', type=float, default=0.3, help='logit adjustment')
    parser.add_argument('--output', type=Path, required=True)
    arguments = parser.parse_args()
    found = {run.name: trial(run) for run in arguments.runs}
    found['adjusted'] = adjusted(arguments.runs[-1], arguments.data, arguments.adjust)
    write_record(arguments.output, found)


if __name__ == '__main__':
    main()
