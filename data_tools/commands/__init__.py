"""The commands of ``data-tools``, one file each."""
