"""Which images a data set has, and their labels: from lists, tables and folders."""

from pplc_cli.data.lists.files import LIST_FORMATS, ListFormat, existing_lists, lists_folder, write_lists
from pplc_cli.data.lists.folders import class_folders, list_unlabelled, read_class_folders
from pplc_cli.data.lists.read import read_extra, read_image_list, read_labels, read_part, require_part
from pplc_cli.data.lists.sample import Sample, count_by_class, spread

__all__ = [
    "LIST_FORMATS",
    "ListFormat",
    "Sample",
    "class_folders",
    "count_by_class",
    "existing_lists",
    "list_unlabelled",
    "lists_folder",
    "read_class_folders",
    "read_extra",
    "read_image_list",
    "read_labels",
    "read_part",
    "require_part",
    "spread",
    "write_lists",
]
