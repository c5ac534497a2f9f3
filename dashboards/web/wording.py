"""Every word of the status page, in Vietnamese and English, in one table.

Words in braces are filled in by the page. Codes that come with the data (an outcome, a verdict, a rule's
statistic) have their own tables below; a code without a word is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from nhip.language import TRAFFIC_STATISTICS, Language, Text, text
from nhip.measurement import Technology
from nhip.words import OUTCOME_WORDS, STAMP_WORDS

WORDS: Mapping[str, Text] = {
    # Frame
    "title": text("Nhịp – hiện trạng mạng", "Nhịp – network status"),
    "tagline": text("Nhịp đập của mạng, đo được", "A network's pulse, measured"),
    "skip": text("Đến nội dung", "Skip to content"),
    "sections": text("Các phần của trang", "Sections of this page"),
    "other_language": text("English", "Tiếng Việt"),
    "reload": text("Tải lại", "Reload"),
    "place_access": text("Truy nhập", "Access"),
    "place_verdicts": text("Quy chuẩn", "Regulation"),
    "place_links": text("Dung lượng", "Capacity"),
    "place_series": text("Kết quả", "Results"),
    "no_data": text("chưa có số liệu", "no data yet"),
    "hidden_rows": text(
        "Còn {count} hàng không hiển thị ở đây; xem đủ trong Grafana.",
        "{count} more rows are not shown here; Grafana has them all.",
    ),
    # Simulation
    "simulated": text("mô phỏng", "simulated"),
    "measured": text("đo thực tế", "measured"),
    "banner": text(
        "Trang này có số liệu không đo trên mạng thật.",
        "Some figures on this page were not measured on a real network.",
    ),
    "banner_lab": text(
        "Giá trị ghi “lab” là của mạng thí nghiệm thu nhỏ.",
        "Values marked “lab” belong to a network in miniature.",
    ),
    "banner_links": text(
        "Số liệu có nhãn “mô phỏng” do mô hình lưu lượng tạo ra.",
        "Figures badged “simulated” come from a traffic model.",
    ),
    # Headline
    "state_calm": text("Mạng ổn định, không có việc cần xử lý", "All steady, nothing needs attention"),
    "state_attention": text("Có {count} việc cần xem", "{count} matters need attention"),
    "state_attention_one": text("Có 1 việc cần xem", "1 matter needs attention"),
    "state_waiting": text("Đang chờ kết quả đo đầu tiên", "Waiting for the first results"),
    "tile_probes": text("đầu đo đang gửi kết quả", "probes reporting"),
    "tile_probes_all": text("không đầu đo nào im lặng", "no probe is silent"),
    "tile_probes_silent": text("{count} đầu đo im lặng", "{count} silent"),
    "tile_verdicts": text("chỉ tiêu không phù hợp", "indicators not conforming"),
    "tile_verdicts_detail": text(
        "{conforming} phù hợp · {too_few} chưa đủ mẫu · {unverified} chưa xác minh",
        "{conforming} conforming · {too_few} too few samples · {unverified} unverified",
    ),
    "tile_links": text("kênh đã vượt hoặc sắp chạm ngưỡng", "links over or about to cross a limit"),
    "tile_links_first": text("chạm ngưỡng sớm nhất: {link}, {date}", "first to cross: {link}, {date}"),
    "tile_links_none": text("{count} kênh có dự báo", "{count} links with a forecast"),
    "tile_records": text("bản ghi đã lưu", "records stored"),
    "tile_records_detail": text("{count} bản ghi bị cách ly", "{count} in quarantine"),
    # Accesses
    "access_title": text("Truy nhập theo doanh nghiệp và công nghệ", "Access by operator and technology"),
    "access_note": text(
        "Kết quả trong {window} gần nhất. Trễ: trung vị của các lần đo khứ hồi. Mất gói: kèm khoảng tin cậy "
        "Wilson 95 %. Tốc độ: trung bình cộng của các lượt truyền. n là số mẫu.",
        "Results of the last {window}. Delay: median over round-trip tests. Loss: with its 95 % Wilson "
        "interval. Speed: arithmetic mean over transfers. n counts samples.",
    ),
    "access_lab_note": text(
        "“lab” là giá trị thật mà mạng thí nghiệm ghi lại ngay trên kênh; vạch dọc trên thanh chỉ vị "
        "trí của nó. Khớp khi trễ lệch không quá {delay} hoặc {delay_ratio}, tốc độ lệch không quá "
        "{speed_ratio}, mất gói nằm trong khoảng Wilson.",
        "“lab” is the truth the network in miniature recorded on the link itself; the upright mark on a bar "
        "shows where it lies. They agree when delay is within {delay} or {delay_ratio}, speed within "
        "{speed_ratio}, loss inside the Wilson interval.",
    ),
    "operator": text("Doanh nghiệp", "Operator"),
    "technology": text("Công nghệ", "Technology"),
    "probe": text("Đầu đo", "Probe"),
    "delay": text("Trễ khứ hồi", "Round-trip delay"),
    "loss": text("Mất gói", "Loss"),
    "download": text("Tải xuống", "Download"),
    "upload": text("Tải lên", "Upload"),
    "lab": text("lab", "lab"),
    "agrees": text("khớp", "agrees"),
    "differs": text("lệch", "differs"),
    "silent": text("im lặng", "silent"),
    "silent_since": text("lần cuối {moment}", "last heard {moment}"),
    "never_heard": text("chưa từng gửi kết quả", "never heard"),
    "access_empty": text("Chưa có đầu đo nào trong cấu hình.", "No probe is configured yet."),
    # Verdicts
    "verdict_title": text("Đánh giá theo quy chuẩn", "Verdicts against the regulation"),
    "verdict_note": text(
        "Giá trị đo kèm khoảng tin cậy. Dưới số mẫu tối thiểu thì không kết luận; mức giới hạn chưa đối "
        "chiếu với văn bản đang hiệu lực thì không bao giờ ghi “Phù hợp”.",
        "Values with their confidence interval. Below the required samples nothing is concluded; a limit not "
        "held against the text in force never yields “conforming”.",
    ),
    "indicator": text("Chỉ tiêu", "Indicator"),
    "where": text("Nơi đo", "Where"),
    "value": text("Giá trị đo", "Measured value"),
    "limit": text("Mức quy chuẩn", "Limit"),
    "limit_unknown": text("chưa biết", "not known"),
    "samples": text("Số mẫu", "Samples"),
    "samples_of": text("{samples} / {required}", "{samples} of {required}"),
    "failed_samples": text("không tính {count} lượt lỗi", "{count} failed, not counted"),
    "verdict": text("Đánh giá", "Verdict"),
    "source": text("Nguồn", "Source"),
    "interval_method": text("Khoảng tin cậy: {method}.", "Confidence interval: {method}."),
    "verdict_empty": text(
        "Chưa có quy chuẩn nào trong cấu hình bộ thu.", "The collector has no regulation profile configured."
    ),
    # Links
    "link_title": text("Dự báo dung lượng kênh", "Capacity forecast of links"),
    "link_note": text(
        "Đường đậm là trung vị, dải màu là khoảng 80 %. Ngày chạm ngưỡng là ngày trung vị; khoảng 80 % của "
        "ngày nằm bên cạnh. Giờ và ngày theo UTC+7.",
        "The line is the median, the band its 80 % interval. A crossing date is the median date, with its "
        "80 % interval beside it. Times and dates are UTC+7.",
    ),
    "capacity": text("Dung lượng", "Capacity"),
    "capacity_unknown": text("chưa có dung lượng", "capacity not given"),
    "model": text("Mô hình", "Model"),
    "forecast_made": text("Lập lúc", "Made"),
    "rule_limit": text("Ngưỡng", "Limit"),
    "rule": text("Quy tắc", "Rule"),
    "crossing": text("Chạm ngưỡng", "Crosses"),
    "interval80": text("Khoảng 80 %", "80 % interval"),
    "probability": text("Xác suất trong thời gian chuẩn bị", "Probability before lead time"),
    "lead_time": text("{days} ngày", "{days} days"),
    "already_over": text("đã vượt ngưỡng", "already over"),
    "never": text("không chạm trong kỳ dự báo", "not within the horizon"),
    "never_within": text("không chạm trong {days} ngày", "not within {days} days"),
    "unverified": text("chưa đối chiếu văn bản", "not checked against the legal text"),
    "curve": text("Đường vẽ", "Curve"),
    "no_capacity": text("chưa có dung lượng nên không có ngày", "no capacity given, so no date"),
    "stale": text("dự báo cũ, lập {days} ngày trước", "old forecast, made {days} days ago"),
    "past": text("ngày này đã qua", "this date has passed"),
    "date_unknown": text("có chạm, chưa rõ ngày", "crosses, date not known"),
    "later": text("muộn hơn", "later"),
    "interval": text("{low} – {high}", "{low} to {high}"),
    "chart_label": text(
        "Dự báo của {link}: trung vị {first} ngày {first_day} và {last} ngày {last_day}",
        "Forecast of {link}: median {first} on {first_day} and {last} on {last_day}",
    ),
    "chart_limit": text("ngưỡng {ratio}", "limit {ratio}"),
    "chart_capacity": text("dung lượng", "capacity"),
    "chart_none": text("Không có đường dự báo.", "No forecast path."),
    "link_empty": text("Chưa có dự báo nào được gửi đến.", "No forecast has been published yet."),
    "notes": text("Ghi chú", "Notes"),
    # Last results
    "series_title": text("Kết quả gần nhất của từng phép đo", "Last result of each test"),
    "kind": text("Phép đo", "Test"),
    "target": text("Đích", "Target"),
    "outcome": text("Kết quả", "Outcome"),
    "started": text("Bắt đầu", "Started"),
    "timestamps": text("Dấu thời gian", "Timestamps"),
    "series_empty": text("Chưa có kết quả nào còn hiệu lực.", "No result is current."),
    # Footer
    "made": text("Trang lập lúc {moment}", "Page made {moment}"),
    "version": text("phiên bản {version}", "version {version}"),
    "counts": text(
        "{stored} bản ghi đã lưu, {quarantined} bị cách ly",
        "{stored} records stored, {quarantined} in quarantine",
    ),
    "zone": text("giờ Việt Nam (UTC+7)", "Viet Nam time (UTC+7)"),
    # Spans of time
    "seconds": text("{count} giây", "{count} s"),
    "minutes": text("{count} phút", "{count} min"),
    "hours": text("{count} giờ", "{count} h"),
    "days": text("{count} ngày", "{count} days"),
}

TECHNOLOGY_WORDS: Mapping[str, Text] = {
    Technology.FIXED: text("Cố định", "Fixed"),
    Technology.MOBILE_3G: text("3G", "3G"),
    Technology.MOBILE_4G: text("4G", "4G"),
    Technology.MOBILE_5G: text("5G", "5G"),
}

# The three words of a regulatory report, and the fourth for a limit nobody has read in the text in force.
VERDICT_WORDS: Mapping[str, Text] = {
    "conforming": text("Phù hợp", "Conforming"),
    "not_conforming": text("Không phù hợp", "Not conforming"),
    "too_few_samples": text("Chưa đủ mẫu", "Too few samples"),
    "limit_unverified": text("Chưa xác minh quy chuẩn", "Limit unverified"),
}

MARK_WORDS: Mapping[str, Text] = {
    "V": text("đọc trong văn bản đang hiệu lực", "read in the text in force"),
    "V-old": text("đọc trong bản trước, chưa đối chiếu", "read in an older edition, not yet checked"),
    "V-sec": text("theo nguồn dẫn lại", "second-hand"),
    "D": text("đọc trong dự thảo", "read in a draft"),
    "U": text("theo trí nhớ, chưa kiểm chứng", "recalled, unverified"),
}

METHOD_WORDS: Mapping[str, Text] = {
    "Student t, 95 %, independent samples": text(
        "Student t, 95 %, coi các mẫu độc lập", "Student t, 95 %, independent samples"
    ),
}

TABLES: Mapping[str, Mapping[str, Text]] = {
    "words": WORDS,
    "technology": TECHNOLOGY_WORDS,
    "outcome": OUTCOME_WORDS,
    "stamp": STAMP_WORDS,
    "verdict": VERDICT_WORDS,
    "statistic": TRAFFIC_STATISTICS,
    "mark": MARK_WORDS,
    "method": METHOD_WORDS,
}


def words(language: Language) -> dict[str, str]:
    """The page's words in one language."""
    return {key: both[language] for key, both in WORDS.items()}
