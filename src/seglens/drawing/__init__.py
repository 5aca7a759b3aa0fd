"""Drawing: pictures, masks and maps as images, cards for notebooks, and a gallery of a data set."""
