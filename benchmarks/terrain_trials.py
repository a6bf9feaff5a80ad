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

    python -m benchmarks.terrain_trials RUN [RUN …] --output RECORD.json

A run that started from another one's weights names it; `crops_seen` are its own.
"""

from argparse import ArgumentParser
import json
from pathlib import Path

from benchmarks.record import write_record

KEPT = ('network', 'backbone', 'generated', 'size', 'input_size', 'steps', 'minutes', 'precision')


def trial(run: Path) -> dict[str, object]:
    """
    Return a run's settings that differ between trials, its length and held-out figures.

    `adjusted` are the figures with `logit_adjustment` times the log of the classes' shares added
    to the logits; None where the run did not.
    """
    config = json.loads((run / 'config.json').read_text())
    metrics = json.loads((run / 'metrics.json').read_text())
    rows = [json.loads(line) for line in (run / 'log.jsonl').read_text().splitlines()]
    last = [row for row in rows if row['part'] == 'held_out'][-1]
    amount, initial = config.get('logit_adjustment'), config['initial']
    figures = {'accuracy': metrics['accuracy'], 'macro_f1': metrics['macro']['f1']}
    return {
        **{key: config.get(key) for key in KEPT},
        'initial': Path(initial).parent.name if initial else None,
        'crops_seen': last['step'] * config['data']['batch_size'],
        'held_out': metrics['held_out'],
        'accuracy': last['accuracy'],
        'macro_f1': last['macro_f1'],
        'adjusted': {'amount': amount, **figures} if amount else None,
    }


def main() -> None:
    """Write the record."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('runs', type=Path, nargs='+', metavar='RUN')
    parser.add_argument('--output', type=Path, required=True)
    arguments = parser.parse_args()
    write_record(arguments.output, {run.name: trial(run) for run in arguments.runs})


if __name__ == '__main__':
    main()
