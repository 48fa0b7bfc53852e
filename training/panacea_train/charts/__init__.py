"""Everything that draws: scales, colours and chart geometry, and the SVG and picture files made of them."""
