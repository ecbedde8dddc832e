"""Roles: the words by which policies name parts of a network, whatever its architecture."""

from __future__ import annotations

ROLES = frozenset(
    {
        *("first_conv", "backbone", "neck", "head", "attention", "dfl", "decode", "detect", "detect_out"),
        *("box_out", "class_out", "mask", "mask_out", "keypoint_out", "angle_out"),
    }
)
