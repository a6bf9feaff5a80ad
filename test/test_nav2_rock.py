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

"""What costmaps make of one rock 5 m ahead on level ground, through the weights that ship."""

from benchmarks.nav2_rock import LevelScene
from lunar_perception import UnifiedPredictor
from lunar_perception.commands.synth import scene_seed
from lunar_perception.nodes.unified_parameters import UnifiedParameters
import pytest
from sensor_msgs.msg import PointCloud2  # noqa: F401  where it is missing, so is all of this

FAULTS = ('off_the_rock', 'front_missed', 'left_behind')


@pytest.fixture(scope='module')
def predictor() -> UnifiedPredictor:
    return UnifiedPredictor.from_pretrained(precision='fp32')


@pytest.mark.parametrize('number', [1, 2, 3])
def test_lethal_cells_are_the_rock_s_and_gone_with_it(
    number: int, predictor: UnifiedPredictor
) -> None:
    scene = LevelScene(scene_seed(5, number), size=512)
    found = dict(scene.figures(predictor, UnifiedParameters(cloud_stride=2)))
    assert len(found) == 4  # truth and network, in either costmap
    for name, counts in found.items():
        assert counts['lethal'] > 0 and counts['front'] > 0, name
        assert {fault: counts[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0), name
