/** Colours and layout that read well on light and dark backgrounds and for the colour-blind (Okabe and Ito 2008; cividis). */

/** Okabe–Ito's colours, by what they stand for here. */
export const COLOURS = {
  blue: '#0072b2',
  orange: '#e69f00',
  green: '#009e73',
  vermilion: '#d55e00',
  purple: '#cc79a7',
  sky: '#56b4e9',
  grey: '#8c8c8c',
} as const;

/** The colours in the order in which series of one figure take them: neighbours differ most. */
export const SERIES_COLOURS: readonly string[] = [COLOURS.blue, COLOURS.vermilion, COLOURS.green, COLOURS.purple, COLOURS.orange, COLOURS.sky, COLOURS.grey];

/** Cividis (Nuñez, Anderton and Renslow 2018): perceptually even, the same to most colour-blind readers. */
export const CIVIDIS: readonly [number, string][] = [
  [0, '#00224e'],
  [0.25, '#434e6c'],
  [0.5, '#7d7c78'],
  [0.75, '#bcaf6f'],
  [1, '#fee838'],
];

/** Mid-grey text is readable on white and on black. */
const TEXT = '#7f7f7f';
const GRID = 'rgba(127,127,127,0.25)';

/** Layout that every figure starts from. */
export function baseLayout(title: string, xTitle: string, yTitle: string, height: number): Record<string, unknown> {
  const axis = (text: string) => ({ title: { text }, gridcolor: GRID, zerolinecolor: GRID, linecolor: GRID, automargin: true });
  return {
    // Above the plot: the title, then one or two lines of legend. The tool bar that Plotly shows on the right covers neither.
    title: { text: title, font: { size: 15 }, x: 0, xref: 'paper', xanchor: 'left', y: 1, yref: 'container', yanchor: 'top', pad: { t: 12 } },
    height,
    margin: { l: 60, r: 20, t: 84, b: 48 },
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { color: TEXT, size: 12 },
    xaxis: axis(xTitle),
    yaxis: axis(yTitle),
    legend: { orientation: 'h', y: 1, yanchor: 'bottom', x: 0, xanchor: 'left' },
  };
}
