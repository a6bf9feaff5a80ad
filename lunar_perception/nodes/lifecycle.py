# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""What rclpy's lifecycle nodes lack."""

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode


def refuse_impossible_transitions(node: LifecycleNode) -> None:
    """
    Answer a transition that the state does not allow with success = false.

    In rclpy 7 such a request to `change_state` raises, which ends the process.
    """
    service = node._service_change_state
    change_state = service.callback

    def answer(
        request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        try:
            return change_state(request, response)
        except RuntimeError as error:  # RCLError, which rclpy does not export
            node.get_logger().warning(f'transition refused: {str(error).splitlines()[0]}')
            response.success = False
            return response

    service.callback = answer
