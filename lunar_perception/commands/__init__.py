# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `lunar-perception`, a module each, imported only when called."""


class CommandError(Exception):
    """A failure the user can act on; its one-line message says what to do."""
