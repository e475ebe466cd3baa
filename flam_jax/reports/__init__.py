"""Pages of runs and studies: tables, charts and templates; each page is one self-contained HTML file."""
